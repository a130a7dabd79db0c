"""The loss, one epoch of Adam, accuracy, ties and early stop, each against a slow restatement."""

import math

import numpy as np
import pytest
import torch

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.rewards import EpochReport, MLPReward, RewardEnsemble, blocks, fit_together, reward_scale
from rayrlhf.rewards.plan import Plan
from rayrlhf.seeding import generator

PLANS = {
    "one after the other": Plan(stacked=False, fit_rows=2048, score_rows=2048),
    "in chunks of one pair": Plan(stacked=False, fit_rows=1, score_rows=1),
    "stacked": Plan(stacked=True, fit_rows=2048, score_rows=2048),
    "stacked, padded, in chunks": Plan(stacked=True, fit_rows=40, score_rows=40, padded=True),
    "stacked, rows in groups": Plan(stacked=True, fit_rows=2048, score_rows=2048, row_groups=8),
}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are cut into groups too."""
    monkeypatch.setattr(blocks, "_ROWS_PER_GROUP", 4)


def with_targets(labels: Labels, targets: list[float]) -> Labels:
    return Labels(labels.left, labels.right, np.array(targets, np.float32))


def slow_sum(network: MLPReward, obs: np.ndarray, action: np.ndarray) -> torch.Tensor:
    return sum(network(torch.from_numpy(o), torch.from_numpy(a)) for o, a in zip(obs, action, strict=True))


def slow_logits(network: MLPReward, labels: Labels) -> torch.Tensor:
    sums = [network(torch.from_numpy(s.obs), torch.from_numpy(s.action)).sum(1) for s in (labels.left, labels.right)]
    return sums[1] - sums[0]


def slow_epoch(
    network: MLPReward, labels: Labels, order: np.ndarray, options: RewardOptions
) -> tuple[float, float, float]:
    """One epoch by the formulas, pair by pair, with autograd and plain Adam: loss, right, decisive."""
    adam = torch.optim.Adam(network.parameters(), lr=options.lr, eps=1e-8)
    losses, right, decisive = [], 0, 0
    for start in range(0, len(order), options.batch_size):
        batch = []
        for i in order[start : start + options.batch_size]:
            left = slow_sum(network, labels.left.obs[i], labels.left.action[i])
            other = slow_sum(network, labels.right.obs[i], labels.right.action[i])
            probability = torch.exp(other) / (torch.exp(left) + torch.exp(other))
            y = float(labels.target[i])
            batch.append(-(y * torch.log(probability) + (1 - y) * torch.log(1 - probability)))
            if y != 0.5:
                decisive += 1
                right += (probability.item() > 0.5) == (y > 0.5)
        adam.zero_grad()
        torch.stack(batch).mean().backward()
        adam.step()
        losses += [loss.item() for loss in batch]
    return float(np.mean(losses)), right, decisive


def networks_of(ensemble: RewardEnsemble, options: RewardOptions) -> list[MLPReward]:
    """The ensemble's members as plain networks of their own memory."""
    weights = ensemble.weights()
    networks = []
    for row in range(options.members):
        network = MLPReward(4, 2, options)
        network.load_state_dict(
            {k.removeprefix("network/"): torch.from_numpy(v[row]) for k, v in weights.items() if "network/" in k}
        )
        networks.append(network)
    return networks


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("output", ["tanh", "linear"])
def test_an_epoch_is_the_formulas_epoch(plan: Plan, output: str, options, make_labels) -> None:
    options = options.model_copy(update={"output": output, "lr": 3e-3})
    labels = with_targets(make_labels(21), [0.0, 0.5, 1.0, 0.25, 1.0, 0.5, 0.0] * 3)
    ensemble = RewardEnsemble(options, 4, 2, seed=5, plan=plan)
    networks = networks_of(ensemble, options)
    report = ensemble.fit_epoch(labels)
    for m, network in enumerate(networks):
        order = generator(5, "reward", m, "shuffle", 0).permutation(21)
        loss, right, decisive = slow_epoch(network, labels, order, options)
        assert report.loss[m] == pytest.approx(loss, rel=1e-4)
        assert report.accuracy[m] == pytest.approx(right / decisive)
    # Logits, not parameters: a bias that cancels between left and right has no gradient, and Adam scales rounding up.
    with torch.no_grad():
        slow = torch.stack([slow_logits(network, labels) for network in networks])
    torch.testing.assert_close(ensemble.pair_logits(labels.left, labels.right), slow, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("output", ["tanh", "linear"])
def test_gradients_are_autograds(plan: Plan, output: str, options, make_labels) -> None:
    options = options.model_copy(update={"lr": 1e-30, "output": output})
    labels = make_labels(8)
    ensemble = RewardEnsemble(options, 4, 2, seed=5, plan=plan)
    networks = networks_of(ensemble, options)
    ensemble.fit_epoch(labels)  # one batch: the buffers hold its gradients
    held = [network for block in ensemble._members.blocks for network in block.networks]
    for slow, fast in zip(networks, held, strict=True):
        target = torch.from_numpy(labels.target)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(slow_logits(slow, labels), target)
        loss.backward()
        for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-6)


def test_plans_give_the_same_curve(options, make_labels) -> None:
    labels = make_labels(21)
    ensembles = [RewardEnsemble(options, 4, 2, seed=5, plan=plan) for plan in PLANS.values()]
    for _ in range(10):
        losses = [ensemble.fit_epoch(labels).loss for ensemble in ensembles]
        for loss in losses[1:]:
            np.testing.assert_allclose(loss, losses[0], rtol=1e-4)


def test_a_tie_pulls_the_sums_together(options, make_labels) -> None:
    labels = with_targets(make_labels(1), [0.5])
    ensemble = RewardEnsemble(options.model_copy(update={"epochs": 300, "lr": 1e-3}), 4, 2, seed=0)
    before = ensemble.pair_logits(labels.left, labels.right).abs()
    report = ensemble.fit(labels)
    assert (ensemble.pair_logits(labels.left, labels.right).abs() < before / 10).all()
    np.testing.assert_allclose(report.loss, math.log(2), atol=1e-3)


def test_equal_pairs_do_not_count_in_the_accuracy(options, make_labels) -> None:
    labels = make_labels(16)
    mixed = with_targets(labels, [*labels.target[:8], *[0.5] * 8])
    first = RewardEnsemble(options.model_copy(update={"lr": 1e-30}), 4, 2, seed=0)
    logit = first.pair_logits(labels.left, labels.right).numpy()[:, :8]
    expected = ((logit > 0) == (labels.target[:8] > 0.5)).mean(1)
    np.testing.assert_allclose(first.fit_epoch(mixed).accuracy, expected, rtol=1e-6)
    assert first.fit_epoch(with_targets(labels, [0.5] * 16)).accuracy.tolist() == [0.0, 0.0, 0.0]


def script(*accuracies: list[float]):
    """A group of members whose epochs report these accuracies."""
    reports = iter(accuracies)
    return lambda labels: EpochReport(np.zeros(len(accuracies[0]), np.float32), np.array(next(reports), np.float32))


def test_stops_on_the_mean_over_all_members_of_all_groups() -> None:
    options = RewardOptions(target_accuracy=0.9, epochs=9)
    groups = [script([1.0], [1.0], [1.0]), script([0.5, 0.9], [0.8, 0.9], [0.8, 0.95])]
    report = fit_together(groups, None, options, list)
    assert report.epochs == 3  # the second epoch's mean is 0.9, which is not above it
    np.testing.assert_allclose(report.accuracy, [1.0, 0.8, 0.95], rtol=1e-6)


def test_never_runs_more_epochs_than_asked(options, make_labels) -> None:
    assert RewardEnsemble(options, 4, 2, seed=0).fit(make_labels(9)).epochs == 5


def test_reward_scale_brings_the_mean_to_unit_deviation() -> None:
    rewards = np.random.default_rng(0).normal(3.0, 0.2, size=(3, 40, 2, 5)).astype(np.float32)
    scale = reward_scale([rewards[:1], rewards[1:]])
    assert (rewards.mean(0) * scale).std() == pytest.approx(1.0, rel=1e-5)
    assert reward_scale([np.ones((2, 7), np.float32)]) == 1.0


@pytest.mark.parametrize(("output", "epochs"), [("linear", 100), ("tanh", 10)])
def test_learns_a_linear_reward(output: str, epochs: int, make_labels) -> None:
    """A bounded reward can only fit the last unclear pairs by saturating, so it stops after ten epochs."""
    options = RewardOptions(hidden=(64, 64), lr=1e-3, epochs=epochs, output=output)
    ensemble = RewardEnsemble(options, 4, 2, seed=0)
    report = ensemble.fit(make_labels(600))
    if output == "linear":
        assert report.epochs < epochs and report.accuracy.mean() > 0.97
    held_out = make_labels(500, seed=1)
    logit = ensemble.pair_logits(held_out.left, held_out.right).mean(0).numpy()
    assert ((logit > 0) == (held_out.target > 0.5)).mean() > 0.9

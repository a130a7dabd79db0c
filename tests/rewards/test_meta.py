"""Few-shot pre-training: inner and outer step restated, their gradients, devices, and that it learns to learn."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rayrlhf.config.meta import MetaOptions
from rayrlhf.config.schema import RewardOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.segments import Segments
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.rewards.members import member_networks
from rayrlhf.rewards.meta import Learner, Pairs, over_devices, rates_of, stacked
from rayrlhf.rewards.pretraining import Pretraining
from rayrlhf.rewards.rates import rates_in

OBS, ACTION, STEPS = 3, 2, 4
REWARD = RewardOptions(members=2, hidden=(5, 4))


def drawn(tasks: int, labels: int, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.normal(size=(tasks, labels, 2, STEPS, OBS + ACTION)))
    return Pairs(inputs, torch.from_numpy(rng.choice([0.0, 0.5, 1.0], (tasks, labels))))


@pytest.fixture
def networks() -> list[nn.Module]:
    return [network.double() for network in member_networks(REWARD, OBS, ACTION, seed=0)]


def slow_loss(network: nn.Module, pairs: Pairs, task: int) -> Tensor:
    """The mean cross-entropy of a task's labels, label by label."""
    total = torch.zeros((), dtype=torch.float64)
    for inputs, target in zip(pairs.inputs[task], pairs.target[task], strict=True):
        left, right = (network(side[:, :OBS], side[:, OBS:]).sum() for side in inputs)
        log_right = right - torch.logaddexp(left, right)
        log_left = left - torch.logaddexp(left, right)
        total = total - target * log_right - (1 - target) * log_left
    return total / len(pairs.target[task])


def test_adaptation_is_gradient_descent_of_each_task_and_member(networks: list[nn.Module]) -> None:
    members = stacked(networks)
    rates = {name: torch.tensor(0.1 * (1 + i), dtype=torch.float64) for i, name in enumerate(members)}
    support, query = drawn(3, 6), drawn(3, 5, seed=1)
    found, accuracy = Learner(networks[0], OBS, 2).judged(members, rates, support, query)
    for task in range(3):
        for index in range(2):
            own = [network.double() for network in member_networks(REWARD, OBS, ACTION, seed=0)][index]
            for _ in range(2):
                loss = slow_loss(own, support, task)
                gradients = torch.autograd.grad(loss, list(own.parameters()))
                with torch.no_grad():
                    for (name, value), gradient in zip(own.named_parameters(), gradients, strict=True):
                        value -= rates[name] * gradient
            torch.testing.assert_close(found[task, index], slow_loss(own, query, task), rtol=1e-10, atol=1e-12)
            right = [
                (own(s[1][:, :OBS], s[1][:, OBS:]).sum() > own(s[0][:, :OBS], s[0][:, OBS:]).sum()) == (t > 0.5)
                for s, t in zip(query.inputs[task], query.target[task], strict=True)
                if t != 0.5
            ]
            assert float(accuracy[task, index]) == pytest.approx(np.mean(right))


def test_outer_gradients_are_finite_differences_through_the_inner_steps(networks: list[nn.Module]) -> None:
    """Of the weights and of the rates; a first-order step, which leaves the second derivatives out, would differ."""
    learner, members = Learner(networks[0], OBS, 2), stacked(networks)
    rates = rates_of(members, 0.3)
    support, query = drawn(2, 4), drawn(2, 4, seed=1)
    by_members, by_rates, loss, _ = learner.outer_gradients(members, rates, support, query)

    def outer() -> float:
        found, _ = learner.judged(members, rates, support, query)
        return float(found.sum(1).mean())

    assert float(loss) == pytest.approx(outer())
    rng, small = np.random.default_rng(0), 1e-6
    for name in members:
        for store, gradient in ((members, by_members), (rates, by_rates)):
            value = store[name].view(-1)
            for place in rng.choice(len(value), min(3, len(value)), replace=False):
                before = float(value[place])
                ends = []
                for side in (small, -small):
                    value[place] = before + side
                    ends.append(outer())
                value[place] = before
                numeric = (ends[0] - ends[1]) / (2 * small)
                assert float(gradient[name].view(-1)[place]) == pytest.approx(numeric, rel=2e-4, abs=1e-8)


def test_tasks_dealt_to_devices_come_to_the_same(networks: list[nn.Module]) -> None:
    learner, members = Learner(networks[0], OBS, 1), stacked(networks)
    rates, support, query = rates_of(members, 0.1), drawn(5, 4), drawn(5, 4, seed=1)
    whole = learner.outer_gradients(members, rates, support, query)
    for count in (1, 2, 3, 7):
        devices = [torch.device("cpu")] * count
        dealt = over_devices(learner.outer_gradients, devices, members, rates, support, query)
        torch.testing.assert_close(dealt, whole, rtol=1e-12, atol=1e-14)


def segments(rng: np.random.Generator, count: int) -> Segments:
    return Segments(
        obs=rng.normal(size=(count, STEPS, OBS)).astype(np.float32),
        action=rng.uniform(-1, 1, (count, STEPS, ACTION)).astype(np.float32),
        reward=np.zeros((count, STEPS), np.float32),
        success=np.zeros((count, STEPS), bool),
        episode=np.arange(count),
        start=np.zeros(count, np.int64),
    )


def task_of(seed: int, labels: int = 60) -> Labels:
    """Somebody who wants the first observation high, or low: which, only labels tell."""
    rng = np.random.default_rng(seed)
    left, right = segments(rng, labels), segments(rng, labels)
    sums = [side.obs[..., 0].sum(1) * (1 if seed % 2 else -1) for side in (left, right)]
    return Labels(left, right, (sums[1] > sums[0]).astype(np.float32))


REWARD = RewardOptions(members=2, hidden=(16, 16))
OPTIONS = MetaOptions(
    support=12,
    query=12,
    inner_lr=0.1,
    lr=3e-3,
    steps=200,
    evaluate_every=50,
    held_out=0.2,
)


def test_it_learns_to_learn_what_a_fresh_network_cannot_from_as_few() -> None:
    said = []
    weights, looks = Pretraining([task_of(seed) for seed in range(20)], REWARD, OPTIONS).run(said.append)
    best = min(looks, key=lambda look: look.loss)
    assert said == looks and looks[0].step == 0
    assert best.accuracy > 0.85 > 0.7 > best.before, "without its labels nobody knows what a task wants"
    assert looks[0].accuracy < 0.75, "nor do these labels help a fresh network"
    rates = rates_in(weights)
    assert len({float(rate) for rate in rates.values()}) == len(rates), "each tensor learns its own"
    ensemble = RewardEnsemble(REWARD, OBS, ACTION, seed=0)
    ensemble.load_weights({name: value for name, value in weights.items() if not name.startswith("rates/")})


def test_a_run_is_a_function_of_its_options() -> None:
    tasks, short = [task_of(seed) for seed in range(6)], OPTIONS.model_copy(update={"steps": 4, "evaluate_every": 2})
    first, again = (Pretraining(tasks, REWARD, short).run(lambda look: None) for _ in range(2))
    assert [look.loss for look in first[1]] == [look.loss for look in again[1]]
    for name, value in first[0].items():
        np.testing.assert_array_equal(value, again[0][name])
    other = Pretraining(tasks, REWARD, short.model_copy(update={"seed": 1})).run(lambda look: None)
    assert other[1][0].loss != first[1][0].loss


def test_ctrl_c_leaves_the_best_so_far() -> None:
    training = Pretraining([task_of(seed) for seed in range(6)], REWARD, OPTIONS)

    def interrupt(look: object) -> None:
        if training.step:
            raise KeyboardInterrupt

    weights, looks = training.run(interrupt)
    assert len(looks) == 2 and weights["network/layers.0.weight"].shape == (2, 16, OBS + ACTION)


def test_inputs_are_standardised_by_what_was_learnt_from() -> None:
    tasks = [task_of(seed) for seed in range(6)]
    training = Pretraining(tasks, REWARD.model_copy(update={"normalize_inputs": True}), OPTIONS)
    rows = np.concatenate([s.obs.reshape(-1, OBS) for task in training.training for s in (task.left, task.right)])
    np.testing.assert_allclose(training.mean, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(training.std, rows.std(0), rtol=1e-5)
    assert not np.array_equal(Pretraining(tasks, REWARD, OPTIONS).std, training.std)


def test_tasks_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UserError, match="wants several tasks, and the data have 1"):
        Pretraining([task_of(0)], REWARD, OPTIONS)
    with pytest.raises(UserError, match="task 1 has 23 labels, and support and query together want 24"):
        Pretraining([task_of(0), task_of(1, labels=23)], REWARD, OPTIONS)
    long = task_of(1)
    cut = Labels(*(Segments(s.obs[:, 1:], s.action[:, 1:], s.reward[:, 1:], s.success[:, 1:], s.episode, s.start)
                   for s in (long.left, long.right)), long.target)  # fmt: skip
    with pytest.raises(UserError, match="differ in segment length or widths"):
        Pretraining([task_of(0), cut], REWARD, OPTIONS)

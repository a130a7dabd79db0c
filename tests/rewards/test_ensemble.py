"""The ensemble as a whole: splits, restores, normalisers, scoring."""

import numpy as np
import pytest
import torch

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.segments import Segments
from rayrlhf.rewards import (
    RewardEnsemble,
    RewardScorer,
    blocks,
    fit_together,
    merge_members,
    reward_scale,
    take_members,
)

NORMALISED = {"normalize_inputs": True, "normalize_rewards": True}


def first(labels: Labels, count: int) -> Labels:
    index = np.arange(count)
    return Labels(labels.left.take(index), labels.right.take(index), labels.target[:count])


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("hidden", [(16, 16), (7,), ()])
def test_any_split_over_groups_is_bit_identical(hidden: tuple[int, ...], options, make_labels) -> None:
    options = options.model_copy(update={**NORMALISED, "hidden": hidden})
    labels = make_labels(21)
    whole = RewardEnsemble(options, 4, 2, seed=3)
    parts = [RewardEnsemble(options, 4, 2, seed=3, members=members) for members in ([0], [1, 2])]
    for count in (13, 21):
        some = first(labels, count)
        report = whole.fit(some)
        split = fit_together([part.fit_epoch for part in parts], some, options, list)
        scale = reward_scale([part.labelled_rewards(some) for part in parts])
        for part in parts:
            part.set_reward_scale(scale)
        np.testing.assert_array_equal(report.loss, split.loss)
        np.testing.assert_array_equal(report.accuracy, split.accuracy)
        assert report.epochs == split.epochs
    assert_same(merge_members([part.weights() for part in reversed(parts)]), whole.weights())
    assert_same(merge_members([part.state() for part in reversed(parts)]), whole.state())
    assert_same(take_members(whole.state(), [1, 2]), parts[1].state())
    logits = torch.cat([part.pair_logits(labels.left, labels.right) for part in parts])
    assert torch.equal(logits, whole.pair_logits(labels.left, labels.right))


def test_split_is_bit_identical_at_full_size(make_labels) -> None:
    """The widths of the paper, where alignment and blocking of the products could differ."""
    options = RewardOptions(epochs=1)
    labels = make_labels(150)
    whole = RewardEnsemble(options, 4, 2, seed=3)
    parts = [RewardEnsemble(options, 4, 2, seed=3, members=[m]) for m in range(3)]
    for each in (whole, *parts):
        each.fit_epoch(labels)
    assert_same(merge_members([part.weights() for part in parts]), whole.weights())


def test_members_differ_and_the_seed_decides(options) -> None:
    weights = RewardEnsemble(options, 4, 2, seed=3).weights()["network/layers.0.weight"]
    assert len({member.tobytes() for member in weights}) == 3
    torch.rand(5)  # the global stream must not matter, nor be touched
    state = torch.random.get_rng_state()
    np.testing.assert_array_equal(weights, RewardEnsemble(options, 4, 2, seed=3).weights()["network/layers.0.weight"])
    assert torch.equal(state, torch.random.get_rng_state())
    other = RewardEnsemble(options, 4, 2, seed=4).weights()["network/layers.0.weight"]
    assert not np.array_equal(weights, other)


@pytest.mark.parametrize("change", [{}, NORMALISED])
def test_a_fit_after_a_restore_continues_bit_for_bit(change: dict[str, bool], options, make_labels) -> None:
    options = options.model_copy(update=change)
    labels = make_labels(30)
    ensemble = RewardEnsemble(options, 4, 2, seed=3)
    ensemble.fit(first(labels, 20))
    restored = RewardEnsemble(options, 4, 2, seed=3)
    restored.load_state(ensemble.state())
    for count in (20, 30):
        for each in (ensemble, restored):
            each.fit(first(labels, count))
        assert_same(ensemble.state(), restored.state())


def test_a_state_holds_no_live_memory(options, make_labels) -> None:
    ensemble = RewardEnsemble(options, 4, 2, seed=3)
    ensemble.fit(make_labels(10))
    state = ensemble.state()
    before = {name: value.copy() for name, value in state.items()}
    ensemble.fit(make_labels(20))
    assert_same(state, before)


def test_another_ensembles_weights_are_refused(options) -> None:
    ensemble = RewardEnsemble(options, 4, 2, seed=0)
    with pytest.raises(ValueError, match="another network's"):
        ensemble.load_weights(RewardEnsemble(options, 5, 2, seed=0).weights())
    with pytest.raises(ValueError, match="weights of members"):
        ensemble.load_weights(RewardEnsemble(options, 4, 2, seed=0, members=[1]).weights())
    with pytest.raises(ValueError, match="ensemble of 3"):
        RewardEnsemble(options, 4, 2, seed=0, members=[3])


def test_inputs_are_standardised_once_per_label(options, make_labels) -> None:
    labels = make_labels(30)
    ensemble = RewardEnsemble(options.model_copy(update={"normalize_inputs": True}), 4, 2, seed=0)
    for count in (10, 10, 30):
        ensemble.fit(first(labels, count))
    rows = np.concatenate([labels.left.obs, labels.right.obs]).reshape(-1, 4).astype(np.float64)
    weights = ensemble.weights()
    np.testing.assert_allclose(weights["inputs/mean"], rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(weights["inputs/std"], rows.std(0), rtol=1e-5)


def test_standardised_inputs_undo_shift_and_scale(options, make_labels) -> None:
    """Observations in other units, and a column that never moves, give the same fit."""
    options = options.model_copy(update={"normalize_inputs": True})
    labels = make_labels(30)

    def other_units(segments: Segments) -> Segments:
        obs = segments.obs.copy()
        obs[..., 3] = 0.0
        return Segments(obs, segments.action, segments.reward, segments.success, segments.episode, segments.start)

    def shifted(segments: Segments) -> Segments:
        obs = segments.obs * np.float32(4.0) + np.array([1.0, 2.0, 3.0, 0.0], np.float32)
        return Segments(obs, segments.action, segments.reward, segments.success, segments.episode, segments.start)

    plain = Labels(other_units(labels.left), other_units(labels.right), labels.target)
    moved = Labels(shifted(plain.left), shifted(plain.right), labels.target)
    losses = [RewardEnsemble(options, 4, 2, seed=0).fit(each).loss for each in (plain, moved)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_normalised_rewards_have_unit_deviation_and_probabilities_stay(options, make_labels) -> None:
    labels = make_labels(30)
    plain = RewardEnsemble(options, 4, 2, seed=0)
    scaled = RewardEnsemble(options.model_copy(update={"normalize_rewards": True}), 4, 2, seed=0)
    for ensemble in (plain, scaled):
        ensemble.fit(labels)
    rewards = torch.stack([scaled.reward(side.obs, side.action) for side in (labels.left, labels.right)])
    assert float(rewards.std(correction=0)) == pytest.approx(1.0, rel=1e-4)
    members = scaled.member_rewards(labels.left.obs, labels.left.action)
    torch.testing.assert_close(members.mean(0), rewards[0])
    assert torch.equal(*(e.pair_logits(labels.left, labels.right) for e in (plain, scaled)))


def test_pair_logits_are_right_less_left(options, make_segments) -> None:
    left, right = make_segments(700, 0), make_segments(700, 1)
    ensemble = RewardEnsemble(options, 4, 2, seed=0)
    sums = [ensemble.member_rewards(side.obs, side.action).sum(-1) for side in (left, right)]
    logits = ensemble.pair_logits(left, right)
    assert logits.shape == (3, 700)
    torch.testing.assert_close(logits, sums[1] - sums[0])
    torch.testing.assert_close(ensemble.pair_logits(right, left), -logits)


def test_changed_and_foreign_labels_are_not_mistaken_for_those_held(options, make_labels) -> None:
    """Other labels, other targets, fewer labels, a longer segment: as if the table had held nothing."""
    a, b = make_labels(12), make_labels(12, seed=7)
    shown = [a, b, Labels(b.left, b.right, 1 - b.target), first(b, 5), a, make_labels(400)]
    ensemble, fresh = RewardEnsemble(options, 4, 2, seed=0), RewardEnsemble(options, 4, 2, seed=0)
    for labels in shown:
        fresh.load_state(fresh.state())  # forgets the converted labels
        np.testing.assert_array_equal(ensemble.fit_epoch(labels).loss, fresh.fit_epoch(labels).loss)


def test_no_labels_change_nothing(options, make_labels) -> None:
    ensemble = RewardEnsemble(options, 4, 2, seed=0)
    before = ensemble.state()
    assert ensemble.fit(first(make_labels(1), 0)).epochs == 0
    assert_same(before, ensemble.state())


def test_labels_of_other_widths_are_refused(options, make_labels) -> None:
    with pytest.raises(ValueError, match="other widths"):
        RewardEnsemble(options, 5, 2, seed=0).fit(make_labels(3))


@pytest.mark.parametrize("change", [{}, NORMALISED])
@pytest.mark.parametrize("count", [0, 1, 2048, 5000])
def test_scorer_equals_the_ensemble(change: dict[str, bool], count: int, options, make_labels) -> None:
    options = options.model_copy(update=change)
    ensemble = RewardEnsemble(options, 4, 2, seed=0)
    ensemble.fit(make_labels(10))
    scorer = RewardScorer(options, 4, 2)
    scorer.load(ensemble.weights())
    rng = np.random.default_rng(0)
    obs, action = (rng.normal(size=(count, width)).astype(np.float32) for width in (4, 2))
    score = scorer.score(obs, action)
    assert score.shape == (count,)
    assert torch.equal(score, ensemble.reward(obs, action))
    single = [ensemble.reward(obs[i], action[i]) for i in range(min(count, 3))]
    torch.testing.assert_close(score[:3], torch.stack(single) if single else torch.empty(0))


def test_scorer_refuses_to_score_before_it_is_loaded_and_wrong_shapes(options) -> None:
    scorer = RewardScorer(options, 4, 2)
    with pytest.raises(ValueError, match="before load"):
        scorer.score(torch.zeros(1, 4), torch.zeros(1, 2))
    scorer.load(RewardEnsemble(options, 4, 2, seed=0).weights())
    with pytest.raises(ValueError, match="obs"):
        scorer.score(torch.zeros(3, 5), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="action"):
        scorer.score(torch.zeros(3, 4), torch.zeros(2, 2))


def test_read_only_arrays_are_taken_without_a_warning(options, make_segments, recwarn) -> None:
    segments = make_segments(3)
    segments.obs.flags.writeable = False
    RewardEnsemble(options, 4, 2, seed=0).member_rewards(segments.obs, segments.action)
    assert not recwarn.list


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("change", [{}, NORMALISED])
def test_cuda_follows_the_cpus_curve(change: dict[str, bool], options, make_labels, monkeypatch) -> None:
    """Stacked, padded, rows in groups, replayed from a graph, across labels that outgrow the table and a restore."""
    monkeypatch.setattr(blocks, "_ROWS_PER_GROUP", 4)
    options = options.model_copy(update=change)
    labels = make_labels(300)
    slow = RewardEnsemble(options, 4, 2, seed=3)
    fast = RewardEnsemble(options, 4, 2, seed=3, device="cuda")
    for count in (5, 21, 300):
        for _ in range(4):
            losses = [each.fit_epoch(first(labels, count)).loss for each in (slow, fast)]
            np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
        fast.load_state(fast.state())
    logits = [each.pair_logits(labels.left, labels.right).cpu() for each in (slow, fast)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-2, atol=1e-3)


def test_a_restart_is_as_if_nothing_had_been_seen(options, make_labels) -> None:
    """Of no matter how many members a process holds, with weights that no restart had before."""
    whole, part = RewardEnsemble(options, 4, 2, seed=3), RewardEnsemble(options, 4, 2, seed=3, members=[1])
    seen = [whole.weights()]
    for _ in range(2):
        for ensemble in (whole, part):
            ensemble.fit_epoch(make_labels(20))
            ensemble.restart()
        state, other = whole.state(), part.state()
        assert not state["adam/step"].any() and not state["adam/exp_avg"].any()
        weights = [name for name in state if name.startswith("network/")]
        for name in weights:
            np.testing.assert_array_equal(state[name][1], other[name][0])
        assert all(any(not np.array_equal(state[name], former[name]) for name in weights) for former in seen)
        seen.append({name: state[name] for name in weights})


def test_smoothed_labels_are_less_certain(options, make_labels) -> None:
    """As labels that are nearer to one half; what is right stays right."""
    labels = make_labels(20)
    smooth = RewardEnsemble(options.model_copy(update={"label_smoothing": 0.2}), 4, 2, seed=0)
    plain = RewardEnsemble(options, 4, 2, seed=0)
    softer = Labels(labels.left, labels.right, 0.8 * labels.target + np.float32(0.1))
    one, other = smooth.fit_epoch(labels), plain.fit_epoch(softer)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
    np.testing.assert_allclose(one.accuracy, other.accuracy)
    for name, value in smooth.weights().items():
        np.testing.assert_allclose(value, plain.weights()[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_restored_ensemble_is_not_pretrained_again(options) -> None:
    """Whoever waits for the first answers is saved after the warm start, and begins the session anew."""
    rng = np.random.default_rng(0)
    explored = [rng.normal(size=size).astype(np.float32) for size in ((40, 4), (40, 2), (40,))]
    options = options.model_copy(update={"pretrain_epochs": 3, "normalize_inputs": True})
    ensemble, restored = (RewardEnsemble(options, 4, 2, seed=1) for _ in range(2))
    fresh = ensemble.state()
    ensemble.pretrain(*explored)
    once = ensemble.state()
    assert not np.array_equal(once["network/layers.0.weight"], fresh["network/layers.0.weight"])
    restored.load_state(once)
    restored.pretrain(*explored)
    assert_same(restored.state(), once)

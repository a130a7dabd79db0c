"""RIME's sieve against its formulas written out, and what it does to wrong labels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.rewards import RewardEnsemble, fit_together, merge_members
from rayrlhf.rewards.denoise import Denoiser, divergence

OPTIONS = RewardOptions(denoise=True, denoise_epochs=5)
PROBABILITIES = st.floats(1e-6, 1 - 1e-6)


@given(st.sampled_from([0.0, 0.25, 0.5, 1.0]), PROBABILITIES)
def test_the_divergence_is_scipys(target: float, probability: float) -> None:
    found = divergence(np.array([target], np.float32), np.array([probability], np.float32))
    kept = float(np.float32(probability))
    assert found[0] == pytest.approx(stats.entropy([target, 1 - target], [kept, 1 - kept]), rel=1e-5, abs=1e-6)


@given(st.lists(arrays(np.float64, 12, elements=PROBABILITIES), min_size=1, max_size=8))
@settings(max_examples=60)
def test_labels_are_sifted_as_the_paper_says(epochs: list[np.ndarray]) -> None:
    target = np.array([0, 1] * 6, np.float32)
    denoiser = Denoiser(OPTIONS)
    largest, seen = 0.0, list[float]()
    for number, probability in enumerate(epochs):
        kept, flipped = denoiser.sift(target, probability)
        own = [-math.log(p if y == 1 else 1 - p) for y, p in zip(target, probability, strict=True)]
        beta = max(1.0, 3.0 - 2.0 * number / 5)
        lower = -math.log(largest + 1e-8) + 0.5 * largest + min(beta * (np.std(seen) if seen else 0.0), 3.0)
        upper = 3 * math.log(10)
        margin = min(min(abs(kl - lower), abs(kl - upper)) for kl in own)
        if margin < 1e-4:  # rounding decides
            return
        assert kept.tolist() == [kl < lower or kl > upper for kl in own]
        assert flipped.tolist() == [kl > upper for kl in own]
        if trusted := [kl for kl in own if kl < lower]:
            largest += 0.1 * (max(trusted) - largest)
            seen += trusted


def test_its_state_goes_on() -> None:
    rng = np.random.default_rng(0)
    target = (rng.uniform(size=50) > 0.5).astype(np.float32)
    one, other = Denoiser(OPTIONS), Denoiser(OPTIONS)
    for _ in range(3):
        one.sift(target, rng.uniform(size=50))
    other.load_state(one.state())
    probability = rng.uniform(size=50)
    for first, second in zip(one.sift(target, probability), other.sift(target, probability), strict=True):
        np.testing.assert_array_equal(first, second)


def _with_wrong(labels: Labels, share: float) -> tuple[Labels, np.ndarray]:
    """A share of the labels turned round, and which."""
    wrong = np.random.default_rng(1).uniform(size=len(labels)) < share
    return Labels(labels.left, labels.right, np.where(wrong, 1 - labels.target, labels.target)), wrong


def test_wrong_labels_are_left_out_or_turned_round(make_labels) -> None:
    """So the model comes nearer to the truth than one that believes all labels and learns them by heart."""
    labels, wrong = _with_wrong(make_labels(300), 0.3)
    truth, accuracy = make_labels(1000, seed=5), {}
    for denoise in (False, True):
        options = RewardOptions(hidden=(64, 64), lr=1e-3, epochs=20, batch_size=32, denoise=denoise)
        ensemble = RewardEnsemble(options, 4, 2, seed=0)
        for session in range(1, 7):
            rows = np.arange(50 * session)
            report = ensemble.fit(Labels(labels.left.take(rows), labels.right.take(rows), labels.target[rows]))
        preferred = ensemble.pair_logits(truth.left, truth.right).mean(0).numpy() > 0
        accuracy[denoise] = float((preferred == (truth.target > 0.5)).mean())
    assert report.kept < 290
    kept = ensemble._sifted(labels, None)
    left_out = np.setdiff1d(np.arange(300), kept)
    assert wrong[left_out].mean() > 0.6 > 0.3 > wrong[kept].mean(), "most of what is left out was wrong"
    assert accuracy[True] > accuracy[False] + 0.03, accuracy


def test_members_split_over_processes_sift_alike(options: RewardOptions, make_labels) -> None:
    labels, _ = _with_wrong(make_labels(40), 0.3)
    sifting = options.model_copy(update={"denoise": True, "epochs": 12})
    whole = RewardEnsemble(sifting, 4, 2, seed=0)
    parts = [RewardEnsemble(sifting, 4, 2, seed=0, members=members) for members in ([0, 2], [1])]
    wanted = whole.fit(labels)
    found = fit_together([part.fit_epoch for part in parts], labels, sifting, list, [p.probabilities for p in parts])
    assert (found.epochs, found.kept) == (wanted.epochs, wanted.kept)
    merged, state = merge_members([part.state() for part in parts]), whole.state()
    for name, value in state.items():
        np.testing.assert_array_equal(merged[name], value, err_msg=name)
    again = RewardEnsemble(sifting, 4, 2, seed=0)
    again.load_state(state)
    np.testing.assert_array_equal(again.fit(labels).loss, whole.fit(labels).loss)

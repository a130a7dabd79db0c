"""Who sides with held-out answers: reward models by their probabilities, policies by what they find probable."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rayrlhf.config import PpoOptions, SacOptions
from rayrlhf.evaluation.agreement import agreement, follows, policy_preference
from rayrlhf.evaluation.metrics import wilson_interval
from rayrlhf.policies import Actor, SquashedActor
from rayrlhf.policies.likelihood import log_probability
from rayrlhf.policies.ppo import GaussianActor
from rayrlhf.preferences import Labels, Segments


def actors() -> list[Actor]:
    torch.manual_seed(0)
    actors: list[Actor] = [
        SquashedActor(3, 2, SacOptions(hidden=(8,))),
        GaussianActor(3, 2, PpoOptions(hidden=(8,), initial_log_std=-0.7)),
    ]
    return [actor.eval().requires_grad_(False) for actor in actors]


ACTORS = actors()
EACH = pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: type(actor).__name__)


@EACH
@pytest.mark.parametrize("at", [(0.1, -0.3), (0.97, 0.0), (1.0, -1.0)])
def test_probability_is_the_frequency_of_sampled_actions(actor: Actor, at: tuple[float, float]) -> None:
    obs = torch.tensor([[0.3, -0.2, 1.0]])
    action = torch.tensor([at])
    drawn = actor.act(obs.expand(200_000, -1), torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1)))
    expected = ((drawn - action).abs() <= 0.2).all(dim=1).double().mean().item()
    found = log_probability(actor, obs, action, within=0.2).exp().item()
    assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 200_000) + 1e-4)


@EACH
def test_probability_equals_scipys(actor: Actor) -> None:
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.normal(size=(50, 3)).astype(np.float32))
    action = actor.act(obs, torch.from_numpy(rng.normal(size=(50, 2)).astype(np.float32))).clamp(-0.9, 0.9)
    mean, log_std = (value.double().numpy() for value in actor(obs))
    reach = np.arctanh if isinstance(actor, SquashedActor) else np.asarray
    low, high = (reach(action.double().numpy() + side * 0.05) for side in (-1, 1))
    deviation = np.exp(log_std)
    slow = np.log(stats.norm.cdf(high, mean, deviation) - stats.norm.cdf(low, mean, deviation)).sum(axis=1)
    np.testing.assert_allclose(log_probability(actor, obs, action), slow, rtol=1e-6)


def test_far_actions_are_improbable_and_not_infinitely_so() -> None:
    narrow = GaussianActor(3, 2, PpoOptions(hidden=(8,), initial_log_std=-4.0)).requires_grad_(False)
    obs = torch.zeros(3, 3)
    found = log_probability(narrow, obs, torch.tensor([[0.0, 0.0], [0.5, 0.5], [-1.0, 1.0]]))
    assert torch.isfinite(found).all()
    assert found[0] > found[1] > found[2]
    torch.testing.assert_close(found[0], torch.tensor(0.0, dtype=torch.float64), atol=0.1, rtol=0)


def segments(actor: Actor, noise: float, seed: int, count: int = 30, length: int = 6) -> Segments:
    """Segments whose actions are the policy's, so much aside."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(count, length, 3)).astype(np.float32)
    action = actor.act(torch.from_numpy(obs.reshape(-1, 3)), None).numpy().reshape(count, length, 2)
    action = np.clip(action + noise * rng.normal(size=action.shape), -1, 1).astype(np.float32)
    nothing = np.zeros((count, length), np.float32)
    return Segments(obs, action, nothing, nothing.astype(bool), np.arange(count), np.zeros(count, np.int64))


@EACH
def test_a_policy_prefers_what_it_would_do(actor: Actor) -> None:
    own, other = segments(actor, 0.0, 0), segments(actor, 1.0, 1)
    labels = Labels(other, own, np.ones(30, np.float32))
    preference = policy_preference(actor, labels, gamma=0.9)
    assert agreement(preference, labels.target).agreed == 1.0
    turned = policy_preference(actor, Labels(own, other, labels.target), gamma=0.9)
    np.testing.assert_allclose(turned, -preference)


@EACH
def test_later_steps_count_less(actor: Actor) -> None:
    some = segments(actor, 0.5, 2, count=4)
    slow = [
        sum(
            0.8**t * log_probability(actor, torch.from_numpy(obs[[t]]), torch.from_numpy(action[[t]])).item()
            for t in range(some.length)
        )
        for obs, action in zip(some.obs, some.action, strict=True)
    ]
    np.testing.assert_allclose(follows(actor, some, gamma=0.8), slow, rtol=1e-6)


@given(st.lists(st.tuples(st.sampled_from([-2.0, 0.0, 1.0]), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=20))
def test_agreement_counts_decisive_labels(pairs: list[tuple[float, float]]) -> None:
    preference, target = np.array([p for p, _ in pairs]), np.array([t for _, t in pairs])
    found = agreement(preference, target)
    decisive = [(p, t) for p, t in pairs if t != 0.5]
    points = sum(0.5 if p == 0 else float((p > 0) == (t > 0.5)) for p, t in decisive)
    assert (found.decisive, found.equal) == (len(decisive), len(pairs) - len(decisive))
    assert found.tied == sum(p == 0 for p, _ in decisive)
    if decisive:
        assert found.agreed == pytest.approx(points / len(decisive))
        assert (found.low, found.high) == pytest.approx(wilson_interval(points, len(decisive)))
    else:
        assert (found.agreed, found.low, found.high) == (None, None, None)


def test_what_is_no_preference_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        agreement(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match=r"\[N\]"):
        agreement(np.zeros(2), np.zeros(3))

"""PrefPPO's loop on the toy, through real Ray actors and RLlib's learner group."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from support import PREFPPO, Make, advance, assert_identical, changed, everything, synchronous
from torch import Tensor

from rayrlhf.algorithms.loop import Interrupted
from rayrlhf.algorithms.prefppo import PrefPPO
from rayrlhf.config.schema import RunConfig
from rayrlhf.policies import make_actor
from rayrlhf.policies.ppo import advantages

pytestmark = pytest.mark.usefixtures("ray_session")

ACTORS: dict[str, Any] = {**PREFPPO, "rollout": {**PREFPPO["rollout"], "actors": 2, "envs_per_actor": 2}}
LEARNERS: dict[str, Any] = {**ACTORS, "resources": {"learners": 2}}


@pytest.mark.parametrize("groups", [pytest.param(ACTORS, marks=pytest.mark.slow), LEARNERS])
def test_two_synchronous_runs_of_one_seed_are_identical(small_run: RunConfig, make: Make, groups: Any) -> None:
    run = synchronous(small_run, **groups)
    first, second = make(run, "a/run"), make(run, "b/run")
    rows = [advance(algorithm, 1000) for algorithm in (first, second)]
    assert rows[0]["labels"] == 12
    assert rows[0]["updates"] == 1000 // 200 * 3 * 4
    assert_identical(everything(first), everything(second))


@pytest.mark.parametrize(
    ("cut_at", "groups"), [(200, ACTORS), (400, ACTORS), pytest.param(600, LEARNERS, marks=pytest.mark.slow)]
)
def test_a_resumed_synchronous_run_equals_an_uninterrupted_one(
    small_run: RunConfig, make: Make, tmp_path: Path, cut_at: int, groups: Any
) -> None:
    """Statistics of observations and the weight of the penalty with it, cut while exploring and while learning."""
    run = synchronous(small_run, **groups)
    whole = make(run, "run")
    advance(whole, cut_at)
    assert whole.can_checkpoint()
    whole.save_checkpoint(str(tmp_path / "cut"))
    advance(whole, 1000)
    resumed = make(run, "run")
    resumed.load_checkpoint(str(tmp_path / "cut"))
    assert resumed.progress.env_steps == cut_at
    advance(resumed, 1000)
    assert resumed.progress.labels == whole.progress.labels == 12
    assert_identical(everything(whole), everything(resumed))
    assert everything(whole)["kl_coefficient"][1] != run.ppo.kl_coefficient


@pytest.mark.parametrize(("before", "after"), [(2, 0), pytest.param(0, 2, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_another_number_of_learners(
    small_run: RunConfig, make: Make, tmp_path: Path, before: int, after: int
) -> None:
    run = synchronous(small_run, **ACTORS)
    first = make(changed(run, resources={"learners": before}), "run")
    advance(first, 200)
    first.save_checkpoint(str(tmp_path / "cut"))
    second = make(changed(run, resources={"learners": after}), "run")
    second.load_checkpoint(str(tmp_path / "cut"))
    row = advance(second, 1000)
    assert row["labels"] == 12
    assert everything(second)["networks/actor.moments._count"] == 1000


def test_learners_stay_equal_and_see_every_step(small_run: RunConfig, make: Make) -> None:
    """Networks and statistics to the last digit, though each learns from other environments."""
    algorithm = make(synchronous(small_run, **LEARNERS))
    advance(algorithm, 1000)
    arrays = everything(algorithm)
    held = {name: array for name, array in arrays.items() if name.startswith(("networks/", "optimizer/", "kl"))}
    for name, array in held.items():
        np.testing.assert_array_equal(array, arrays[f"learner1/{name}"], err_msg=name)
    assert not np.array_equal(arrays["generator"], arrays["learner1/generator"])
    assert arrays["networks/actor.moments._count"] == 1000


@pytest.mark.parametrize("source", ["entropy", "true", "ensemble"])
def test_rows_are_what_the_policy_did(small_run: RunConfig, make: Make, source: str) -> None:
    """Log-probabilities are those of the networks, rewards those of the source, advantages the papers'."""
    run = synchronous(small_run, **{**ACTORS, "resources": {"learners": 0}})
    algorithm: PrefPPO = make(run)
    advance(algorithm, 600 if source == "ensemble" else 200)
    learner = algorithm.learner_group._learner
    if source == "true":
        learner.reward_with("true")
    arrivals, rows_each = algorithm.gather()
    assert rows_each == 200
    fragments = [ray.get(arrival.fragment) for arrival in arrivals]
    entropy = None if learner.entropy is None else len(learner.entropy)
    obs, rows = learner._take_rows()
    assert obs.shape == (50, 4, 4) and rows.seen.shape == (200, 4)

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(one, name) for one in fragments], axis=1)).float()

    networks, ppo = learner.networks, run.ppo
    with torch.no_grad():
        normal = torch.distributions.Normal(networks.actor.trunk(rows.seen), networks.actor.log_std.exp())
        log_prob = normal.log_prob(rows.action).sum(-1)
        torch.testing.assert_close(rows.log_prob, log_prob, rtol=1e-4, atol=1e-4)
        value = networks.value(networks.actor.standardise(joined("obs")))
        next_value = networks.value(networks.actor.standardise(joined("next_obs")))
    assert torch.equal(joined("raw_action").clamp(-1, 1), joined("action"))
    reward = joined("reward")
    if source == "entropy":
        assert entropy is not None
        reward = learner.entropy.distance(torch.arange(entropy, entropy + 200)).view(50, 4)
        reward = reward / learner.entropy._moments.std
    if source == "ensemble":
        weights = {name: array.copy() for name, array in ray.get(algorithm.feedback.weights()).items()}
        learner.scorer.load(weights)
        reward = learner.scorer.score(joined("obs").flatten(0, 1), joined("action").flatten(0, 1)).view(50, 4)
        assert reward.std() > 0
    done = torch.maximum(joined("terminated"), joined("truncated"))
    assert done.sum() == 4, "an episode has 50 steps"
    wanted = advantages(reward, value, next_value, joined("terminated"), done, gamma=ppo.gamma, lam=ppo.gae_lambda)
    torch.testing.assert_close(rows.advantage, wanted.flatten(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows.goal, (wanted + value).flatten(), rtol=1e-4, atol=1e-4)


def test_statistics_and_penalty_do_not_drift(small_run: RunConfig, make: Make) -> None:
    """After a thousand updates the statistics are those of all observations, computed at once."""
    algorithm: PrefPPO = make(synchronous(changed(small_run, total_steps=20_000), **ACTORS))
    seen = []
    learner = algorithm.learner_group._learner
    take = learner._take_rows

    def watched() -> tuple[Tensor, Any]:
        obs, rows = take()
        seen.append(obs.flatten(0, 1))
        return obs, rows

    learner._take_rows = watched
    advance(algorithm, 17_000)
    assert algorithm.progress.updates >= 1000
    every, moments = torch.cat(seen).double(), learner.networks.actor.moments
    torch.testing.assert_close(moments.mean, every.mean(0).float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(moments.std, every.std(0, correction=0).float(), rtol=1e-6, atol=1e-6)


def test_asynchronous_steps_are_seen_as_the_policy_saw_them_that_acted(small_run: RunConfig, make: Make) -> None:
    """They are an iteration old, and the statistics have moved since: against the former the ratio is 1."""
    algorithm: PrefPPO = make(changed(small_run, **{**ACTORS, "resources": {"learners": 0}}))
    published, fetch = dict[int, Any](), algorithm._fetch_policy

    def watched() -> Any:
        policy = fetch()
        published[algorithm.progress.learner_calls] = ray.get(policy)
        return policy

    algorithm._fetch_policy = watched
    advance(algorithm, 600)
    learner = algorithm.learner_group._learner
    arrivals, _ = algorithm.gather()
    fragments = [ray.get(arrival.fragment) for arrival in arrivals]
    newest = learner.networks.actor.moments.mean
    _, rows = learner._take_rows()
    seen, moved = [], []
    for arrival, fragment in zip(arrivals, fragments, strict=True):
        policy = make_actor(algorithm.run, fragment.obs.shape[2], fragment.action.shape[2])
        arrays = published[arrival.report.version]
        policy.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
        seen.append(policy.standardise(torch.from_numpy(np.array(fragment.obs))))
        moved.append(not torch.equal(policy.moments.mean, newest))
    assert any(moved)
    assert torch.equal(rows.seen, torch.cat(seen, dim=1).flatten(0, 1))
    row = advance(algorithm, 1000)
    assert 1 <= row["max_staleness"] <= 2 and row["labels"] > 0


@pytest.mark.parametrize("reward_actors", [1, 2])
def test_the_reward_model_standardises_as_the_policy_did(small_run: RunConfig, make: Make, reward_actors: int) -> None:
    """By the statistics at the time of the fit, also where the members are in several processes."""
    groups = {**ACTORS, "reward": {"normalize_inputs": True}, "resources": {"reward_actors": reward_actors}}
    algorithm: PrefPPO = make(synchronous(small_run, **groups))
    advance(algorithm, 400)
    moments = algorithm.learner_group._learner.networks.actor.moments
    mean, std = moments.mean.numpy().copy(), moments.std.numpy().copy()
    algorithm.train()
    weights = ray.get(algorithm.feedback.weights())
    assert algorithm.progress.sessions == 2
    np.testing.assert_array_equal(weights["inputs/mean"], mean)
    np.testing.assert_array_equal(weights["inputs/std"], std)


def test_another_runs_exploration_brings_statistics_and_no_penalty(
    small_run: RunConfig, make: Make, tmp_path: Path
) -> None:
    run = synchronous(small_run, **ACTORS)
    exploring = changed(run, explore={"save": str(tmp_path / "explored")}, ppo={"kl_coefficient": 0.0})
    first = make(exploring, "first")
    advance(first, 400)
    second = make(changed(run, seed=1), "second")
    second.load_checkpoint(str(tmp_path / "explored"), exploration_only=True)
    arrays = everything(second)
    assert arrays["kl_coefficient"].tolist() == [0.2, np.float32(0.2)]
    assert arrays["networks/actor.moments._count"] == second.progress.env_steps == second.progress.borrowed == 200
    assert advance(second, 1000)["labels"] == 12


def test_a_penalty_that_is_asked_for_at_a_resume_is_there(small_run: RunConfig, make: Make, tmp_path: Path) -> None:
    run = synchronous(small_run, **ACTORS)
    first = make(changed(run, ppo={"kl_coefficient": 0.0}), "run")
    advance(first, 200)
    first.save_checkpoint(str(tmp_path / "cut"))
    second = make(run, "run")
    second.load_checkpoint(str(tmp_path / "cut"))
    assert everything(second)["kl_coefficient"].tolist() == [0.2, np.float32(0.2)]


def test_learners_get_as_many_steps_after_an_actor_died(small_run: RunConfig, make: Make) -> None:
    """And no iteration takes more than its steps, though one actor has been asked once more than the other."""
    algorithm: PrefPPO = make(synchronous(small_run, **LEARNERS))
    advance(algorithm, 400)
    algorithm.rollouts.numbers[1] += 1
    for _ in range(2):
        before = algorithm.progress.env_steps
        algorithm.train()
        assert algorithm.progress.env_steps - before == 200


def test_an_iteration_that_is_interrupted_on_the_way_has_not_begun(
    small_run: RunConfig, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One actor's steps are with the learner when the run is told to stop: they are not counted."""
    algorithm: PrefPPO = make(changed(small_run, **ACTORS))
    advance(algorithm, 400)
    collect, before = algorithm.collect, algorithm.progress.env_steps

    def half() -> list[Any]:
        arrivals = collect()
        algorithm.interrupted.set()
        return arrivals[:1]

    monkeypatch.setattr(algorithm, "collect", half)
    with pytest.raises(Interrupted):
        for _ in range(10):
            algorithm.train()
    assert algorithm.progress.env_steps == before
    algorithm.save_checkpoint(str(tmp_path / "cut"))
    resumed = make(changed(small_run, **ACTORS), "run")
    resumed.load_checkpoint(str(tmp_path / "cut"))
    assert resumed.progress.env_steps == before
    assert advance(resumed, 1000)["updates"] > algorithm.progress.updates


def test_the_policy_stays_until_somebody_has_answered(small_run: RunConfig, make: Make) -> None:
    run = synchronous(changed(small_run, teacher={"name": "silent"}), **ACTORS)
    algorithm: PrefPPO = make(run)
    advance(algorithm, 400)
    before = everything(algorithm)
    row = advance(algorithm, 1000)
    after = everything(algorithm)
    assert row["sessions"] > 1 and row["labels"] == 0
    assert after["networks/actor.moments._count"] == 1000 > before["networks/actor.moments._count"]
    for name, value in before.items():
        if name.startswith("networks/actor.trunk"):
            np.testing.assert_array_equal(after[name], value, err_msg=name)

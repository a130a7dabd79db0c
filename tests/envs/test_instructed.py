"""Several tasks in turn, and observations that end with the instruction."""

import numpy as np
import pytest
from pydantic import ValidationError

from rayrlhf.config.schema import EnvOptions
from rayrlhf.config.tasks import ML10_TEST, ML10_TRAIN, MT10, tasks_in
from rayrlhf.envs import check_env, make_env
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.make import draws_of
from rayrlhf.errors import UserError

TWO = "window-open, window-close"


def options(task: str, suite: str = "metaworld", horizon: int = 6, **others: object) -> EnvOptions:
    return EnvOptions(suite=suite, task=task, horizon=horizon, **others)  # type: ignore[arg-type]


def instructions(tasks: int, wordings: int, width: int = 3) -> Instructions:
    sentences = tuple(tuple(f"{task} {wording}" for wording in range(wordings)) for task in range(tasks))
    return Instructions(sentences, np.random.default_rng(0).random((tasks, wordings, width), np.float32))


def test_the_sets_are_metaworlds_own() -> None:
    env_dict = pytest.importorskip("metaworld.env_dict")

    def plain(names: dict[str, object]) -> tuple[str, ...]:
        return tuple(name.removesuffix("-v3") for name in names)

    assert plain(env_dict.ML10_V3["train"]) == ML10_TRAIN
    assert plain(env_dict.ML10_V3["test"]) == ML10_TEST
    assert plain(env_dict.MT10_V3) == MT10


def test_tasks_are_written_with_commas_or_as_a_set() -> None:
    assert tasks_in("reach") == ("reach",)
    assert tasks_in("ml10-test,reach , drawer-open") == (*ML10_TEST, "reach")
    for wrong in ("", "reach,,push", ","):
        with pytest.raises(ValidationError, match="names no task"):
            options(wrong)
    with pytest.raises(UserError, match=r"unknown task 'windowopen'.*did you mean"):
        check_env(options("window-close,windowopen"))
    with pytest.raises(UserError, match="names 2 tasks: suite gymnasium"):
        check_env(options("HalfCheetah-v5, Hopper-v5", "gymnasium"))


@pytest.mark.parametrize("suite", ["metaworld", "toy"])
def test_each_environment_has_the_tasks_in_turn_as_if_it_had_one(suite: str) -> None:
    """Environment 3's episode 1 of the second task is what a run with that task alone has there."""
    names = {"metaworld": ("window-open", "window-close"), "toy": ("point", "point-away")}[suite]
    both = make_env(options(",".join(names), suite), 2, seed=5, indices=[2, 3])
    alone = [make_env(options(name, suite), 2, seed=5, indices=[2, 3]) for name in names]
    rng = np.random.default_rng(0)
    obs, others = both.reset([0, 0]), [env.reset([0, 0]) for env in alone]
    for t in range(20):
        episode = t // 6
        tasks = [(index + episode) % 2 for index in (2, 3)]
        for i, task in enumerate(tasks):
            np.testing.assert_array_equal(obs[i], others[task][i])
        action = rng.uniform(-1, 1, (2, both.spec.action_dim)).astype(np.float32)
        step, apart = both.step(action), [env.step(action) for env in alone]
        for i, task in enumerate(tasks):
            for name in ("next_obs", "reward", "truncated", "success"):
                np.testing.assert_array_equal(getattr(step, name)[i], getattr(apart[task], name)[i])
        obs, others = step.obs, [one.obs for one in apart]


def test_observations_end_with_what_was_said_in_their_episode() -> None:
    said = instructions(2, wordings=4)
    toys = options("point,point-away", "toy", encoder="hashing", instruction_width=3)
    env = make_env(toys, 2, seed=5, indices=[0, 1], instructions=said)
    plain = make_env(toys.model_copy(update={"encoder": None}), 2, seed=5, indices=[0, 1])
    assert check_env(toys) == env.spec and env.spec.obs_dim == plain.spec.obs_dim + 3
    draws = draws_of(toys, 5, (0, 1))

    def expected(episode: int) -> np.ndarray:
        return np.stack([said.of(draws, i, episode)[1] for i in range(2)])

    obs, bare = env.reset([4, 4]), plain.reset([4, 4])
    heard = set()
    for t in range(30):
        episode = 4 + t // 6
        np.testing.assert_array_equal(obs, np.concatenate([bare, expected(episode)], axis=1))
        heard |= {tuple(row) for row in obs[:, -3:]}
        step, other = env.step(np.ones((2, 2), np.float32)), plain.step(np.ones((2, 2), np.float32))
        np.testing.assert_array_equal(step.next_obs, np.concatenate([other.next_obs, expected(episode)], axis=1))
        obs, bare = step.obs, other.obs
    assert len(heard) > 4, "wordings vary"
    with pytest.raises(ValueError, match="instructions are wanted exactly where"):
        make_env(toys, 2, seed=5)


def test_which_wording_does_not_depend_on_who_runs_the_environment() -> None:
    said, toys = instructions(3, wordings=6), options("point,point-away,point-terminating", "toy")
    whole, part = draws_of(toys, 1, tuple(range(8))), draws_of(toys, 1, (5,))
    for episode in range(20):
        assert said.of(whole, 5, episode)[0] == said.of(part, 0, episode)[0]
    tasks = {whole.task_of(i, 0) for i in range(3)} | {part.task_of(0, episode) for episode in range(3)}
    assert tasks == {0, 1, 2}, "several environments, and one alone, come by all"

"""Helpers for tests that drive the whole loop."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from safetensors.numpy import load_file

from rayrlhf.actors.feedback import FeedbackLoop
from rayrlhf.algorithms.learner import PreferenceLearner
from rayrlhf.algorithms.loop import PreferenceAlgorithm
from rayrlhf.algorithms.make import algorithm_config
from rayrlhf.algorithms.roles import FeedbackFactory
from rayrlhf.algorithms.sac_learner import PebbleLearner
from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.language.instructions import instructions_of
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.segments import Queries
from rayrlhf.teachers import Teacher
from rayrlhf.tracking import RunDirectory

Make = Callable[..., Any]
"""The fixture `make`: builds an algorithm from a run, in a folder of its own."""


SMALL = (
    "--total_steps=1000",
    "--sac.hidden=[16,16]",
    "--sac.batch_size=32",
    "--reward.hidden=[16]",
    "--reward.epochs=5",
    "--explore.seed_steps=100",
    "--explore.unsupervised_steps=200",
    "--queries.budget=12",
    "--queries.per_session=4",
    "--queries.interval=200",
    "--rollout.actors=1",
    "--rollout.fragment_length=10",
    "--tracking.tensorboard=false",
)
"""Overrides that make a run of the toy take seconds."""
PREFPPO: dict[str, Any] = {
    "algorithm": "prefppo",
    "ppo": {"hidden": [16, 16], "batch_size": 50, "epochs": 3, "explore_epochs": 3, "kl_coefficient": 0.2},
    "rollout": {"fragment_length": 50},
}
"""What makes the small run one of PrefPPO."""
APART = ("--rollout.actors=2", "--rollout.synchronous=true", "--resources.learners=1", "--resources.reward_actors=2")
"""Every role has processes of its own, in the synchronous mode."""
CLOCKS = ("seconds", "per_second", "steps_s", "wall")


def of_kind(environment: str) -> list[str]:
    """A preset that takes seconds, by `toy` or `metaworld`."""
    if environment == "toy":
        return ["toy", *SMALL]
    return ["pebble_metaworld", *SMALL, "--env.task=button-press", "--env.horizon=50", "--queries.segment_length=10"]


def curve(run: RunDirectory) -> list[dict[str, float | None]]:
    """Everything that was measured but time."""
    return [
        {name: value for name, value in row.items() if not any(word in name for word in CLOCKS)}
        for row in run.metrics()
    ]


def networks(run: RunDirectory) -> dict[str, object]:
    """The newest checkpoint's networks and optimisers."""
    newest = max(run.checkpoints.glob("step-*"))
    return dict(load_file(newest / "learner.safetensors"))


def small(folder: Path) -> RunConfig:
    """A run of the toy that takes seconds, with its results under `folder`."""
    return load_config("toy", [*SMALL, f"--storage_path={folder / 'runs'}"])


def build(run: RunConfig, folder: Path, feedback: FeedbackFactory = FeedbackLoop) -> PreferenceAlgorithm:
    """The algorithm of `run`, its answer log in `folder`."""
    said = instructions_of(run.env)
    told = feedback if said is None else partial(feedback, instructions=said)  # type: ignore[call-arg]
    options = algorithm_config(run).of(run, feedback=told, folder=str(folder), instructions=said)
    algorithm: PreferenceAlgorithm = options.build_algo()
    return algorithm


def changed(run: RunConfig, **groups: Any) -> RunConfig:
    """`run` with options replaced: `rollout={"actors": 1}` or `mode="oracle"`."""
    values = run.model_dump(mode="json", by_alias=True)
    for name, value in groups.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(values)


def advance(algorithm: PreferenceAlgorithm, env_steps: int) -> dict[str, float]:
    """Trains until `env_steps`; the last row."""
    row: dict[str, float] = {}
    while algorithm.progress.env_steps < env_steps:
        row = algorithm.train()["rayrlhf"]
    return row


def everything(algorithm: PreferenceAlgorithm) -> dict[str, np.ndarray]:
    """All that learning has touched, flat: networks, optimisers, replay, rewards, ensemble; of every learner."""
    group = algorithm.learner_group
    if group.is_local:
        learners = [everything_of(group._learner)]
    else:
        learners = ray.get([worker.apply.remote(everything_of) for worker in group._workers])
    arrays, *others = learners
    for index, other in enumerate(others, start=1):
        arrays |= {f"learner{index}/{name}": array for name, array in other.items()}
    if algorithm.feedback is not None:
        arrays |= {f"ensemble/{name}": array for name, array in ray.get(algorithm.feedback.weights()).items()}
    return arrays


def everything_of(learner: PreferenceLearner) -> dict[str, np.ndarray]:
    """Copies of a learner's networks, optimisers, shard of the replay if it has one, and generator."""
    arrays = dict(learner.arrays())
    if isinstance(learner, PebbleLearner):
        size = learner.replay.size
        arrays |= {f"replay/{name}": column[:size].numpy() for name, column in learner.replay.columns.items()}
        arrays["replay/reward"] = learner.replay.reward[:size].numpy()
    arrays["generator"] = learner.generator.get_state().numpy()
    return {name: np.array(array) for name, array in arrays.items()}


def assert_identical(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def synchronous(run: RunConfig, **groups: Any) -> RunConfig:
    return changed(run, **{**groups, "rollout": {"synchronous": True, **groups.get("rollout", {})}})


class LateTeacher:
    """Answers at the next call, or the one after: what is asked in one session comes back in a later one."""

    def __init__(self, sessions: int = 1) -> None:
        self._waiting: list[list[Answer]] = [[] for _ in range(sessions)]

    def ask(self, queries: Queries) -> None:
        self._waiting.append([Answer(key, "left", "late") for key in queries.ids])

    def collect(self) -> list[Answer]:
        return self._waiting.pop(0) if self._waiting else []


class MuteTeacher:
    """Never answers; where it `hangs`, it does not even return."""

    asked = threading.Event()

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs
        self.asked.clear()

    def ask(self, queries: Queries) -> None:
        self.asked.set()

    def collect(self) -> list[Answer]:
        if self._hangs:
            threading.Event().wait()
        return []


class Verdicts:
    """Answers by the true reward, and never before `open` is set; until then `collect` may hang."""

    def __init__(self, *, hang: bool = False) -> None:
        self._waiting: list[Answer] = []
        self.open = threading.Event()
        self.asked = threading.Event()
        self._hang = hang

    def ask(self, queries: Queries) -> None:
        better = queries.right.reward.sum(1) > queries.left.reward.sum(1)
        said: list[Choice] = ["right" if right else "left" for right in better]
        self._waiting += [Answer(key, choice, "true") for key, choice in zip(queries.ids, said, strict=True)]
        self.asked.set()

    def collect(self) -> list[Answer]:
        if self._hang:
            self.open.wait()
        answers, self._waiting = (self._waiting, []) if self.open.is_set() else ([], self._waiting)
        return answers


GIVEN: list[Teacher] = []
"""The teachers that `given_feedback` takes, one after the other."""


def given_feedback(run: RunConfig, obs_dim: int, action_dim: int, folder: str) -> FeedbackLoop:
    return FeedbackLoop(run, obs_dim, action_dim, folder, teacher=GIVEN.pop(0))


def late_feedback(run: RunConfig, obs_dim: int, action_dim: int, folder: str) -> FeedbackLoop:
    return FeedbackLoop(run, obs_dim, action_dim, folder, teacher=LateTeacher())


def later_feedback(run: RunConfig, obs_dim: int, action_dim: int, folder: str) -> FeedbackLoop:
    return FeedbackLoop(run, obs_dim, action_dim, folder, teacher=LateTeacher(2))


def mute_feedback(run: RunConfig, obs_dim: int, action_dim: int, folder: str) -> FeedbackLoop:
    return FeedbackLoop(run, obs_dim, action_dim, folder, teacher=MuteTeacher())


def hanging_feedback(run: RunConfig, obs_dim: int, action_dim: int, folder: str) -> FeedbackLoop:
    return FeedbackLoop(run, obs_dim, action_dim, folder, teacher=MuteTeacher(hangs=True))


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    """Presses Ctrl-C once `condition` holds; join the thread afterwards."""

    def watch() -> None:
        while not condition():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread

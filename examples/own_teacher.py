"""A teacher of one's own: a program that answers through `ask` and `collect`, and a run of the toy that learns from it.

    python examples/own_teacher.py [--seed=1 ...]        any option of a run may follow

On the command line the same teacher is `PYTHONPATH=examples rayrlhf train toy --teacher.name own_teacher:NearerGoal`.
"""

import queue
import sys
import threading

import numpy as np

from rayrlhf.config import TeacherOptions
from rayrlhf.config.load import load_config
from rayrlhf.preferences.answers import Answer, Choice
from rayrlhf.preferences.segments import Queries
from rayrlhf.training import train

FAR, ALIKE = 1.5, 0.05
"""In the toy's units: clips as far from the goal as this show nothing, and what differs by less is equal."""


class NearerGoal:
    """Prefers the segment that keeps nearer to the goal, as it sees it: the true reward is never looked at.

    It takes its time. `ask` only puts the questions in line; a thread looks at one after another, and `collect` hands
    over what it has said since the last call.
    """

    def __init__(self, options: TeacherOptions, seed: int) -> None:
        self._asked: set[str] = set()
        self._open: queue.SimpleQueue[tuple[str, float, float]] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        threading.Thread(target=self._look, daemon=True).start()

    def ask(self, queries: Queries) -> None:
        """Returns at once. An id that was asked before is not asked again."""
        for i, key in enumerate(queries.ids):
            if key not in self._asked:
                self._asked.add(key)
                self._open.put((key, distance(queries.left.obs[i]), distance(queries.right.obs[i])))

    def collect(self) -> list[Answer]:
        """The answers since the last call, possibly none."""
        return [self._said.get() for _ in range(self._said.qsize())]

    def _look(self) -> None:
        while True:
            key, left, right = self._open.get()
            self._said.put(Answer(key, choose(left, right), annotator="nearer-goal"))


def distance(obs: np.ndarray) -> float:
    """The mean distance to the goal in a segment's observations `[T, 4]`; the first two are the way to the goal."""
    return float(np.hypot(obs[:, 0], obs[:, 1]).mean())


def choose(left: float, right: float) -> Choice:
    """Skip where neither clip shows anything, equal where they hardly differ, else the nearer one."""
    if min(left, right) > FAR:
        return "skip"
    if abs(left - right) < ALIKE:
        return "equal"
    return "left" if left < right else "right"


def main(*more: str) -> None:
    """Trains on the toy with this teacher; training waits for its answers."""
    overrides = [
        "--teacher.name=own_teacher:NearerGoal",
        "--teacher.wait=true",
        "--total_steps=5000",
        "--queries.budget=100",
        "--queries.interval=300",
        "--rollout.actors=1",
        *more,
    ]
    config = load_config("toy", overrides)
    summary = train(config, progress=False)
    print(f"success {summary['success_rate']:.0%} of {summary['eval_episodes']} episodes")
    print(f"labels  {summary['labels']} from {summary['answers']} answers: a skip makes no label")
    print(f"run     {config.storage_path}/{summary['name']}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The program itself, whole but for its loop: built by RLlib with its actors, and driven by a benchmark."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from rayrlhf.actors.feedback import FeedbackLoop
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.config import RunConfig
from rayrlhf.preferences.fragments import Fragment


@contextmanager
def program(run: RunConfig) -> Iterator[Pebble]:
    """`run`'s algorithm with its rollout actors, learner and feedback roles; its folder goes away afterwards."""
    with tempfile.TemporaryDirectory(prefix="rayrlhf-bench-") as folder:
        config = Pebble.get_default_config().of(run, feedback=FeedbackLoop, folder=folder)
        config.debugging(log_level="ERROR")
        algorithm: Pebble = config.build_algo()
        try:
            yield algorithm
        finally:
            algorithm.stop()


def fill(algorithm: Pebble, fragment: Fragment) -> None:
    """Puts `fragment` into the replay and the trajectory store, without counting it as the run's own steps."""
    algorithm.learner_group.foreach_learner(lambda learner: learner.insert([fragment]))
    if algorithm.feedback is not None:
        algorithm.feedback.remember([ray.put(fragment)])


def collect(algorithm: Pebble) -> int:
    """One round of collecting without learning: takes what has come, sends idle actors off; transitions taken."""
    arrivals = algorithm.collect()
    algorithm.request_fragments()
    return sum(arrival.report.num_transitions for arrival in arrivals)


def drain(algorithm: Pebble) -> None:
    """Takes what is on its way and asks for nothing: its rollout actors are idle afterwards."""
    algorithm.rollouts.collect(version=0, max_staleness=0, everything=True)


def on_actors(algorithm: Pebble, function: Any) -> list[Any]:
    """`function(actor)` on every rollout actor."""
    group = algorithm.env_runner_group
    return list(group.foreach_env_runner(function, local_env_runner=False))

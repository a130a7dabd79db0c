"""`bench scale`: what the driver has to do with many rollout actors, up to a thousand and beyond.

The driver is the program's own, with RLlib's manager of actors, a learner in a process of its own and the trajectory
store. In place of environments there are `processes` real Ray actors that return a prepared fragment at once; each
stands for many rollout actors, so the driver asks, waits for and hands on as many fragments as that many would send.
Each round has a new policy, as after a call of the learners, and fragments may be as stale as by default. A case is
one number of actors against the fewest, by processor time of the driver's thread for each fragment. The table has
beside it: fragments and transitions per second if the thread did nothing else (where the driver saturates), fragments
per second by the clock, which the processes behind it and the learner share the machine for, how many are there when
it looks, and what one request, which carries the newest weights by reference, costs.
"""

import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import ray
from pydantic import Field
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.actor_manager import FaultAwareApply, FaultTolerantActorManager

from rayrlhf.algorithms.collector import CollectReport
from rayrlhf.algorithms.loop import PreferenceAlgorithm
from rayrlhf.algorithms.rollouts import Rollouts
from rayrlhf.bench.data import random_fragment, ray_session
from rayrlhf.bench.program import program
from rayrlhf.bench.report import BenchOptions, Case, Count, Report, options_from
from rayrlhf.bench.timing import torch_threads
from rayrlhf.config import EnvOptions, ExploreOptions, QueryOptions, ResourceOptions, RolloutOptions, RunConfig
from rayrlhf.preferences.fragments import Fragment

FRAGMENTS_AT_LEAST = 400
UNIT = "fragments/s of the driver's thread"


class ScaleBench(BenchOptions):
    """Options of `bench scale`."""

    rounds: Count = 3
    actors: Annotated[tuple[Count, ...], Field(min_length=2)] = (1, 10, 100, 1000)
    processes: Count = 4
    """Real ones behind them."""
    steps: Count = 400
    """Per fragment."""


class Prepared(FaultAwareApply):  # type: ignore[misc]
    """Answers as a rollout actor does, with the same fragment every time."""

    def __init__(self, steps: int, obs_dim: int, action_dim: int) -> None:
        self._fragment = random_fragment(steps, obs_dim=obs_dim, action_dim=action_dim, episode=50)
        self._version = 0

    def sample(self, *, weights: Any, version: int, **kwargs: Any) -> Fragment:
        """A fragment, once the weights are there."""
        self._version = version
        return self._fragment

    def report(self) -> CollectReport:
        """What is known of it."""
        return CollectReport(self._version, self._fragment.num_transitions, (0,), False, ())


def run(**given: Any) -> dict[str, Any]:
    """Measures each number of actors in turn."""
    options = options_from(ScaleBench, given, "scale")
    report = Report("scale")
    rows = []
    with torch_threads(options.threads), ray_session(), program(_run(options)) as algorithm:
        widths = algorithm.config.observation_space.shape[0], algorithm.config.action_space.shape[0]
        real = [
            ray.remote(Prepared).options(num_cpus=0).remote(options.steps, *widths) for _ in range(options.processes)
        ]
        found: dict[int, list[_Cost]] = {count: [] for count in options.actors}
        for number in range(-1, options.rounds):
            for count in options.actors:
                algorithm.rollouts = _of(count, real)
                cost = _measure(algorithm, max(FRAGMENTS_AT_LEAST, 2 * count))
                if number >= 0:
                    found[count].append(cost)
        fewest = options.actors[0]
        base = median(cost.seconds for cost in found[fewest])
        for count, costs in found.items():
            seconds = median(cost.seconds for cost in costs)
            if count != fewest:
                against = f"the same with {fewest} rollout actors"
                report.cases[f"{count}_actors"] = Case(1 / seconds, 1 / base, UNIT, against)
            names = "ready", "request", "wall"
            ready, request, wall = (median(getattr(cost, name) for cost in costs) for name in names)
            numbers = f"{1000 * seconds:.2f}", f"{1 / seconds:.0f}", f"{options.steps / seconds:,.0f}"
            rows.append([str(count), *numbers, f"{1 / wall:.0f}", f"{ready:.0f}", f"{1000 * request:.2f}"])
    columns = [
        *("actors", "ms a fragment", "fragments/s", "steps/s", "fragments/s by the clock"),
        *("ready at a time", "ms a request"),
    ]
    return report.as_dict() | {"table": {"columns": columns, "rows": rows}}


@dataclass(frozen=True)
class _Cost:
    """Of one portion: the thread's seconds for a fragment and for a request, and fragments ready at a time.

    wall: seconds for a fragment by the clock
    """

    seconds: float
    wall: float
    request: float
    ready: float


def _measure(algorithm: PreferenceAlgorithm, fragments: int) -> _Cost:
    taken, looks, asked, requests = 0, 0, 0, 0.0
    begin, start = time.thread_time(), time.monotonic()
    while taken < fragments:
        algorithm._policy = algorithm._fetch_policy()
        before, asked_before = time.thread_time(), sum(algorithm.rollouts.numbers.values())
        algorithm.request_fragments()
        requests += time.thread_time() - before
        asked += sum(algorithm.rollouts.numbers.values()) - asked_before
        arrivals = algorithm.collect()
        algorithm.insert(arrivals)
        taken, looks = taken + len(arrivals), looks + 1
        algorithm.progress.learner_calls += 1
    seconds, wall = (time.thread_time() - begin) / taken, (time.monotonic() - start) / taken
    algorithm.insert(algorithm.rollouts.collect(version=0, max_staleness=0, everything=True))
    return _Cost(seconds, wall, requests / max(1, asked), taken / looks)


def _of(count: int, real: list[Any]) -> Rollouts:
    """Requests to `count` rollout actors, all of which are `real` ones."""
    group = EnvRunnerGroup.__new__(EnvRunnerGroup)
    handles = [real[index % len(real)] for index in range(count)]
    group._worker_manager = FaultTolerantActorManager(handles, max_remote_requests_in_flight_per_actor=4, init_id=1)
    group._ignore_ray_errors_on_env_runners = False
    return Rollouts(group, restore=lambda: None, check=lambda: None)


def _run(options: ScaleBench) -> RunConfig:
    return RunConfig(
        total_steps=1_000_000_000,
        env=EnvOptions(suite="toy", task="point", horizon=50),
        explore=ExploreOptions(seed_steps=0, unsupervised_steps=0),
        queries=QueryOptions(segment_length=10, budget=10, per_session=10),
        rollout=RolloutOptions(actors=1, fragment_length=options.steps),
        resources=ResourceOptions(learners=1),
    )

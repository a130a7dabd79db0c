"""`bench rollout`: transitions per second that reach the driver from rollout actors.

Ours is the program's own path: requests with the newest weights, actors stepping `envs` environments each with batched
inference, columnar fragments by reference, reports. The reference steps the same environments in a loop in this
process and keeps nothing; no other side's actors are busy meanwhile. Several actors are measured against one of them:
`efficiency` in the notes is the share of so many times its rate that they reach, which wants a free core for each.
`_cpu` cases count transitions per second of processor time instead of the clock's, which other programs on the machine
do not disturb.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field

from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.bench.data import ray_session
from rayrlhf.bench.program import collect, drain, on_actors, program
from rayrlhf.bench.reference_rollout import BareLoop, StockMetaWorld
from rayrlhf.bench.report import BenchOptions, Count, Report, options_from
from rayrlhf.bench.timing import Rates, Side, alternate, torch_threads
from rayrlhf.config import EnvOptions, ExploreOptions, RolloutOptions, RunConfig, SacOptions
from rayrlhf.envs import make_env
from rayrlhf.policies import make_actor

UNIT = "transitions/s"


class RolloutBench(BenchOptions):
    """Options of `bench rollout`."""

    rounds: Count = 5
    actors: Annotated[tuple[Annotated[int, Field(gt=1)], ...], Field(min_length=1)] = (2,)
    """Numbers of actors to measure against one."""
    envs: Count = 8
    """Per actor."""
    fragments: Count = 10
    """Per actor and portion."""
    fragment_length: Count = 100
    suite: Literal["metaworld", "toy"] = "metaworld"
    task: str = "drawer-open"


def run(**given: Any) -> dict[str, Any]:
    """Measures one actor, several, and EnvPool where it is installed."""
    options = options_from(RolloutBench, given, "rollout")
    report = Report("rollout")
    cpus = 16 + sum(options.actors)
    with torch_threads(options.threads), ray_session(cpus), ExitStack() as stack:
        _measure(report, options, stack)
        return report.as_dict()


def _measure(report: Report, options: RolloutBench, stack: ExitStack) -> None:
    programs = {"one": stack.enter_context(program(_run(options, actors=1)))}
    several = {f"{count}_actors": count for count in options.actors}
    for name, count in several.items():
        programs[name] = stack.enter_context(program(_run(options, actors=count)))
    if options.suite == "metaworld" and find_spec("envpool") is not None:
        for name, threads in (("envpool", 1), ("envpool_two_threads", 2)):
            pooled = _run(options, actors=1, backend="envpool", threads=threads)
            programs[name] = stack.enter_context(program(pooled))
    env = make_env(programs["one"].run.env, options.envs, seed=0)
    policy = make_actor(programs["one"].run, env.spec.obs_dim, env.spec.action_dim).eval()
    steps = options.fragments * options.fragment_length
    bare = BareLoop(env, policy)
    sides: dict[str, Side] = {"bare": lambda: bare.steps(steps)}
    if options.suite == "metaworld":
        stock = StockMetaWorld(options.task, options.envs, policy)
        sides["stock"] = lambda: stock.steps(steps)
    for name, algorithm in programs.items():
        sides[name] = _fragments(algorithm, options.fragments * algorithm.run.rollout.actors)
    before = {name: partial(_only, programs.get(name), programs) for name in sides}
    rates = alternate(sides, rounds=options.rounds, before=before)
    envs = f"{options.envs} environments"
    against = f"the same {envs} and policy in a bare loop in this process, one core"
    report.add("one_actor", rates, "one", "bare", unit=UNIT, against=against)
    for name, count in several.items():
        report.add(name, rates, name, "one", unit=UNIT, against=f"one actor of {envs}; wants {count} free cores")
        report.notes[f"efficiency_{name}"] = rates.median(name) / rates.median("one") / count
    if "stock" in sides:
        stock_loop = f"{envs} of the metaworld package stepped in a bare loop with the same policy"
        report.add("one_actor_stock_metaworld", rates, "one", "stock", unit=UNIT, against=stock_loop)
    if "envpool" in sides:
        report.add("envpool", rates, "envpool", "one", unit=UNIT, against="the same actor with the Python backend")
        against = "one actor with the Python backend; wants two free cores"
        report.add("envpool_two_threads", rates, "envpool_two_threads", "one", unit=UNIT, against=against)
        report.add("envpool_stock_metaworld", rates, "envpool", "stock", unit=UNIT, against=stock_loop)
    _per_processor_second(report, options, programs, bare)


def _run(
    options: RolloutBench, *, actors: int, backend: Literal["python", "envpool"] = "python", threads: int = 1
) -> RunConfig:
    horizon = 500 if options.suite == "metaworld" else 50
    env = EnvOptions(suite=options.suite, task=options.task, backend=backend, threads=threads, horizon=horizon)
    return RunConfig(
        mode="oracle",
        total_steps=10_000,
        env=env,
        sac=SacOptions(hidden=(256, 256)),
        explore=ExploreOptions(seed_steps=0, unsupervised_steps=0),
        rollout=RolloutOptions(actors=actors, envs_per_actor=options.envs, fragment_length=options.fragment_length),
    )


def _fragments(algorithm: Pebble, count: int) -> Side:
    """Collects `count` fragments.

    Each actor was sent off at the beginning and has one on its way at the end. With several actors those of the others
    are half done then, on average, and count for nothing.
    """
    rows = algorithm.run.rollout.envs_per_actor * algorithm.run.rollout.fragment_length

    def side() -> float:
        taken = 0
        while taken < count * rows:
            taken += collect(algorithm)
        return float(taken)

    return side


def _only(side: Pebble | None, programs: Mapping[str, Pebble]) -> None:
    """Lets no rollout actors be busy but those of `side`, which have just been sent off."""
    for algorithm in programs.values():
        drain(algorithm)
    if side is not None:
        side.request_fragments()


def _per_processor_second(report: Report, options: RolloutBench, programs: dict[str, Pebble], bare: BareLoop) -> None:
    """The same by processor time: an actor's whole process, Ray's threads included, against this thread."""
    actors = {name: programs[name] for name in ("one", "envpool") if name in programs}
    made: dict[str, list[float]] = {name: [] for name in (*actors, "bare")}
    for _ in range(options.rounds):
        for name, algorithm in actors.items():
            _only(algorithm, programs)
            begin = on_actors(algorithm, lambda actor: time.process_time())[0]
            rows = _fragments(algorithm, options.fragments)()
            made[name].append(rows / (on_actors(algorithm, lambda actor: time.process_time())[0] - begin))
        _only(None, programs)
        start = time.thread_time()
        rows = bare.steps(options.fragments * options.fragment_length)
        made["bare"].append(rows / (time.thread_time() - start))
    rates = Rates(made)
    unit = "transitions/processor second"
    report.add("one_actor_cpu", rates, "one", "bare", unit=unit, against="the bare loop, by processor time of either")
    if "envpool" in actors:
        against = "the same actor with the Python backend, by processor time of either"
        report.add("envpool_cpu", rates, "envpool", "one", unit=unit, against=against)

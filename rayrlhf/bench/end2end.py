"""`bench end2end`: the whole program against a loop of the literature, in three parts.

`unsupervised`: environment steps per second of state-entropy exploration with 10,000 states visited. `session`: from
the question to the relabelled replay, with nothing else going on; `session_standstill`: how long learning waits for it.
`steady_*`: environment steps per second of learning between two sessions; a note gives the bound that perfect overlap
of collecting and learning would reach times 0.95, 0.95 (1 + (env + act + score) / update), of parts measured in the
reference.

Ours is the program as `rayrlhf train` runs it (RLlib's `Algorithm.train`, Ray actors for rollouts and feedback); the
reference is `reference_loop`, in this process. Both step our MetaWorld.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import Field

from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.bench.data import as_replay, ray_session, real_fragment
from rayrlhf.bench.program import fill, program
from rayrlhf.bench.reference_loop import PARTS, SeriesLoop, SeriesSession
from rayrlhf.bench.reference_reward import member_networks
from rayrlhf.bench.reference_sac import TensorReplay
from rayrlhf.bench.report import BenchOptions, Case, Count, Report, options_from
from rayrlhf.bench.timing import Side, alternate, torch_threads
from rayrlhf.config import (
    EnvOptions,
    ExploreOptions,
    QueryOptions,
    ResourceOptions,
    RewardOptions,
    RolloutOptions,
    RunConfig,
    SacOptions,
    TrackingOptions,
)
from rayrlhf.envs import make_env
from rayrlhf.preferences.fragments import Floats, Fragment
from rayrlhf.rewards import RewardEnsemble

STEADY: dict[str, tuple[tuple[int, ...], int, float]] = {
    "steady_2x256_b256_half": ((256, 256), 256, 0.5),
    "steady_2x256_b256": ((256, 256), 256, 1.0),
    "steady_3x256_b512": ((256, 256, 256), 512, 1.0),
}
"""Hidden layers, batch, updates per step."""
PartName = Literal["unsupervised", "session", "steady_2x256_b256_half", "steady_2x256_b256", "steady_3x256_b512"]
PART_NAMES: tuple[PartName, ...] = get_args(PartName)
STANDSTILL = (
    "the same by the time learning stands still: in the reference for the whole session, in ours for the relabelling "
    "(the rest takes the reward actor's core meanwhile)"
)
SERIES = "a loop of the literature in one process: environment, acting, scoring and update in series"


class End2EndBench(BenchOptions):
    """Options of `bench end2end`."""

    rounds: Count = 5
    parts: tuple[PartName, ...] = PART_NAMES
    task: str = "drawer-open"
    actors: Count = 2
    steps: Count = 400
    """Environment steps per portion of `unsupervised` and `steady_*`."""
    visited: Count = 10_000
    """States visited in `unsupervised`."""
    explore_batch: Count = 512
    """Batch of `unsupervised`, with 3x256 networks: the paper's on MetaWorld."""
    rows: Count = 100_000
    """In the replay that a session relabels."""
    labels: Count = 50
    """Per session; the first holds 200."""
    epochs: Count = 10
    """Of a session's fit; both sides run all of them."""
    reward_actors: Annotated[int, Field(gt=0, le=RewardOptions().members)] = 1
    """Processes that share the reward model's members in `session`."""


def run(**given: Any) -> dict[str, Any]:
    """Measures the chosen parts one after the other."""
    options = options_from(End2EndBench, given, "end2end")
    report = Report("end2end")
    with torch_threads(options.threads), ray_session():
        for part in options.parts:
            if part == "unsupervised":
                _unsupervised(report, options)
            elif part == "session":
                _session(report, options)
            else:
                _steady(report, options, part)
        return report.as_dict()


def _run(
    options: End2EndBench,
    sac: SacOptions,
    *,
    explore: ExploreOptions,
    reward: RewardOptions | None = None,
    queries: QueryOptions | None = None,
) -> RunConfig:
    return RunConfig(
        total_steps=1_000_000,
        env=EnvOptions(task=options.task),
        sac=sac,
        explore=explore,
        reward=reward or RewardOptions(epochs=2),
        queries=queries or QueryOptions(budget=20, per_session=20, interval=1_000_000),
        rollout=RolloutOptions(actors=options.actors),
        resources=ResourceOptions(threads=options.threads, reward_actors=options.reward_actors),
        tracking=TrackingOptions(log_interval=min(100, options.steps)),
    )


def _train_steps(algorithm: Pebble, count: int) -> Side:
    """Trains for at least `count` environment steps; the steps made."""

    def side() -> float:
        begin = algorithm.progress.env_steps
        while algorithm.progress.env_steps < begin + count:
            algorithm.train()
        return float(algorithm.progress.env_steps - begin)

    return side


def _room_for(fragment: Fragment, more: int) -> tuple[TensorReplay, int]:
    """The fragment's rows in a replay with room for `more`; and how many they are."""
    filled = as_replay(fragment)
    rows, obs_dim = filled.obs.shape
    replay = TensorReplay.empty(rows + more, obs_dim, filled.action.shape[1])
    for name in ("obs", "action", "reward", "next_obs", "done"):
        getattr(replay, name)[:rows] = getattr(filled, name)
    return replay, rows


# --- exploration ---


def _unsupervised(report: Report, options: End2EndBench) -> None:
    sac = SacOptions(batch_size=options.explore_batch, replay_capacity=200_000)
    config = _run(options, sac, explore=ExploreOptions(seed_steps=0, unsupervised_steps=100_000))
    visited = real_fragment(config, options.visited)
    few = max(1, options.steps // 4)
    replay, rows = _room_for(visited, (options.rounds + 1) * few)
    env = make_env(config.env, 1, seed=1)
    series = SeriesLoop(env, sac, [], replay, filled=rows, neighbours=config.explore.neighbours)
    with program(config) as algorithm:
        fill(algorithm, visited)
        sides = {"ours": _train_steps(algorithm, options.steps), "series": lambda: series.steps(few)}
        rates = alternate(sides, rounds=options.rounds, before={"ours": algorithm.train})
    against = f"{SERIES}; nearest neighbours by broadcast at every update"
    report.add("unsupervised", rates, "ours", "series", unit="environment steps/s", against=against)


# --- a session ---


def _session(report: Report, options: End2EndBench) -> None:
    length, first = 50, 200
    reward = RewardOptions(epochs=options.epochs, target_accuracy=1.0)
    queries = QueryOptions(budget=100_000, per_session=first, interval=1_000_000, segment_length=length)
    sac = SacOptions(replay_capacity=max(options.rows, 100))
    explore = ExploreOptions(seed_steps=0, unsupervised_steps=0)
    config = _run(options, sac, explore=explore, reward=reward, queries=queries)
    experience = real_fragment(config, options.rows)
    series = _series_session(config, experience, length)
    with program(config) as algorithm:
        feedback = algorithm.feedback
        assert feedback is not None
        algorithm.learner_group.foreach_learner(lambda learner: learner.reward_with("true"))
        fill(algorithm, experience)
        number = 0
        seconds: dict[str, list[float]] = {}

        def hold(count: int) -> float:
            nonlocal number
            begin = time.perf_counter()
            feedback.begin_session(number, count)
            while (outcome := feedback.finish_session()) is None:
                time.sleep(0.001)
            answered = time.perf_counter()
            algorithm.learner_group.foreach_learner(
                lambda learner: learner.reward_with("ensemble", outcome.weights, outcome.version)
            )
            seconds.setdefault("relabel", []).append(time.perf_counter() - answered)
            for part in ("query_seconds", "teacher_seconds", "fit_seconds"):
                seconds.setdefault(part.removesuffix("_seconds"), []).append(outcome.metrics[part])
            seconds.setdefault("whole", []).append(time.perf_counter() - begin)
            number += 1
            return 1.0

        hold(first)
        series.hold(first, config.queries.candidates)
        sides = {
            "ours": lambda: hold(options.labels),
            "series": lambda: series.hold(options.labels, config.queries.candidates),
        }
        rates = alternate(sides, rounds=options.rounds, warm_up=0)
        report.notes["session_seconds"] = {part: float(np.median(values[1:])) for part, values in seconds.items()}
        report.notes["session_seconds_series"] = _parts_of(series, options.labels, config.queries.candidates)
        still = Case(1 / report.notes["session_seconds"]["relabel"], rates.median("series"), "sessions/s", STANDSTILL)
        report.cases["session_standstill"] = still
    against = (
        "in one thread: members in turn, each segment in a pass of its own, relabelling 200 rows at a time; "
        f"{options.labels} labels after {first}, {options.epochs} epochs, {options.rows} rows"
    )
    report.add("session", rates, "ours", "series", unit="sessions/s", against=against)


def _parts_of(series: SeriesSession, labels: int, candidates: int) -> dict[str, float]:
    """Seconds of the reference's parts, once more and each by itself."""
    seconds = {}
    parts: dict[str, Callable[[], None]] = {
        "query": lambda: series.ask(labels, candidates),
        "fit": series.fit,
        "relabel": series.relabel,
    }
    for name, part in parts.items():
        begin = time.perf_counter()
        part()
        seconds[name] = time.perf_counter() - begin
    return seconds


def _series_session(config: RunConfig, experience: Fragment, length: int) -> SeriesSession:
    inputs = np.concatenate([experience.obs, experience.action], axis=-1)  # [T, N, D]
    rows = np.ascontiguousarray(inputs.reshape(-1, inputs.shape[-1]))
    with_reward = np.concatenate([inputs, experience.reward[..., None]], axis=-1)
    horizon = config.env.horizon or 500
    episodes: list[Floats] = [
        with_reward[start : start + horizon, env]
        for env in range(inputs.shape[1])
        for start in range(0, len(inputs), horizon)
    ]
    episodes = [part for part in episodes if len(part) >= length][-config.queries.recent_episodes :]
    widths = experience.obs.shape[-1], experience.action.shape[-1]
    weights = RewardEnsemble(config.reward, *widths, seed=0).weights()
    return SeriesSession(config.reward, weights, rows, episodes, length=length)


# --- steady learning ---


def _steady(report: Report, options: End2EndBench, part: str) -> None:
    hidden, batch_size, updates_per_step = STEADY[part]
    sac = SacOptions(hidden=hidden, batch_size=batch_size, updates_per_step=updates_per_step, replay_capacity=200_000)
    explore = ExploreOptions(seed_steps=200, unsupervised_steps=0, critic_reset_updates=0)
    config = _run(options, sac, explore=explore)
    experience = real_fragment(config, options.visited)
    replay, rows = _room_for(experience, (options.rounds + 1) * options.steps)
    env = make_env(config.env, 1, seed=1)
    widths = env.spec.obs_dim, env.spec.action_dim
    networks = member_networks(config.reward, RewardEnsemble(config.reward, *widths, seed=0).weights())
    series = SeriesLoop(env, sac, networks, replay, filled=rows)
    with program(config) as algorithm:
        while algorithm.progress.exploring:
            algorithm.train()
        fill(algorithm, experience)
        sides = {"ours": _train_steps(algorithm, options.steps), "series": lambda: series.steps(options.steps)}
        rates = alternate(sides, rounds=options.rounds, before={"ours": algorithm.train})
        realised = algorithm.row()["updates_per_step"]
    against = f"{SERIES}; {updates_per_step:g} updates per step"
    report.add(part, rates, "ours", "series", unit="environment steps/s", against=against)
    total = sum(series.seconds.values())
    beside = total - series.seconds["update"]
    report.notes[part] = {
        "bound": 0.95 * (1 + beside / series.seconds["update"]),
        "shares": {name: series.seconds[name] / total for name in PARTS},
        "updates_per_step": realised,
    }

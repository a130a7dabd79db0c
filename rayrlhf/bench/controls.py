"""`bench controls`: what a run's success is worth. The same run beside four that should do worse, or better.

`random` draws its answers, `silent` gives none, `oracle` trains on the true reward, and `constant` is the best of
twenty constant actions, chosen on the very episodes it is measured on. Each run is a process of its own, with the same
seed and the same final episodes; over several seeds, success is the mean, with every seed beside it. The same command
again goes on where it was cut off: runs that are finished are taken as they are, others from their last checkpoint.
"""

import json
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import Field

from rayrlhf import seeding
from rayrlhf.bench.report import Case, Count, Report, options_from
from rayrlhf.config import RunConfig
from rayrlhf.config.load import load_config
from rayrlhf.config.options import NonNegative, Options
from rayrlhf.config.schema import TeacherOptions
from rayrlhf.envs import make_env
from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Floats
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train

_PLAIN = tuple(
    f"teacher.{name}={json.dumps(value)}" for name, value in TeacherOptions().model_dump(mode="json").items()
)
CONTROLS: dict[str, tuple[str, ...]] = {
    "random": (*_PLAIN, "teacher.name=random"),
    "silent": (*_PLAIN, "teacher.name=silent"),
    "oracle": ("mode=oracle",),
}
"""By control: what differs from the run. What else a scripted teacher was told means nothing to these two."""
Control = Literal["random", "silent", "oracle", "constant"]
MEANING = {
    "random": "the same run with the teacher's answers drawn at random",
    "silent": "the same run without a single answer",
    "oracle": "the same run on the true reward",
    "constant": "the best of {} constant actions on the same episodes",
}
EPISODES_AT_ONCE = 5


class ControlsBench(Options):
    """Options of `bench controls`."""

    preset: str = "quickstart"
    """A preset's name or a YAML file."""
    seeds: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0,)
    name: str | None = None
    """The runs are NAME-s0-run, NAME-s0-random, ... in `storage`; NAME is the preset's where none is given."""
    storage: str = "runs/controls"
    only: tuple[Control, ...] = get_args(Control)
    constant_actions: Count = 20
    at_once: Count = 1
    """Runs that share the machine; their clocks then tell nothing."""
    overrides: tuple[str, ...] = ()
    """Of the config, for all runs: `overrides=[total_steps=2000]`."""
    progress: bool = False


def run(**given: Any) -> dict[str, Any]:
    """Trains the run and its controls; success over the final evaluation's episodes."""
    options = options_from(ControlsBench, given, "controls")
    report = Report("controls")
    changes: dict[str, tuple[str, ...]] = {"run": ()}
    changes |= {control: different for control, different in CONTROLS.items() if control in options.only}
    configs = [(side, _config(options, seed, side, changes[side])) for seed in options.seeds for side in changes]
    success: dict[str, list[float]] = {side: [] for side in changes}
    with ThreadPoolExecutor(options.at_once) as threads:
        summaries = threads.map(lambda of: _train(of[1], progress=options.progress), configs)
        for (side, config), summary in zip(configs, summaries, strict=True):
            success[side].append(float(summary["success_rate"]))
            report.notes.setdefault("runs", {})[str(config.name)] = summary
    if "constant" in options.only:
        found = [best_constant(config, options.constant_actions) for side, config in configs if side == "run"]
        success["constant"] = [rate for rate, _ in found]
        report.notes["constant_action"] = [action.tolist() for _, action in found]
    report.notes["success"] = {"seeds": list(options.seeds), **success}
    for control in (side for side in success if side != "run"):
        against = MEANING[control].format(options.constant_actions)
        report.cases[control] = Case(fmean(success["run"]), fmean(success[control]), "success rate", against)
    return report.as_dict()


def _config(options: ControlsBench, seed: int, side: str, changes: tuple[str, ...]) -> RunConfig:
    name = f"{options.name or Path(options.preset).stem}-s{seed}-{side}"
    own = (f"seed={seed}", f"name={name}", f"storage_path={options.storage}")
    return load_config(options.preset, [*own, *options.overrides, *changes])


def _train(config: RunConfig, *, progress: bool) -> dict[str, Any]:
    """One run's summary, trained in a new process: each has its own Ray and its own clock."""
    folder = Path(config.storage_path) / str(config.name)
    begun = folder.exists()
    if begun:
        run = RunDirectory.open(folder)
        if run.config() != config:
            raise UserError(f"{folder} is a run of another config: choose another name, or move it away")
        if (summary := run.summary()) is not None:
            return summary
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as process:
        resume = folder if begun else None
        return process.submit(_train_here, config, resume=resume, progress=progress).result()


def _train_here(config: RunConfig, **how: Any) -> dict[str, Any]:
    """What a run's process does: trains, and takes the end of whoever started it, however it came, for a Ctrl-C."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_interrupt_after, args=(parent,), name="parent", daemon=True).start()
    try:
        return train(config, **how)
    except KeyboardInterrupt:
        if not parent.is_alive():
            os._exit(130)  # the pool's worker would wait for the next task of a process that is gone
        raise


def _interrupt_after(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGINT)


def best_constant(config: RunConfig, count: int) -> tuple[float, Floats]:
    """The highest success rate among `count` constant actions on the final evaluation's episodes, and its action."""
    actions = constant_actions(config, count)
    success = [constant_success(config, action) for action in actions]
    best = int(np.argmax(success))
    return success[best], actions[best]


def constant_actions(config: RunConfig, count: int) -> Floats:
    """`[count, A]`: pushes along each axis, both ways; then in turn from {-1, 0, 1}^A and uniform in [-1, 1]^A."""
    width = make_env(config.env, 1, seed=config.seed).spec.action_dim
    rng = seeding.generator(config.seed, "constant actions")
    axes = np.concatenate([np.eye(width), -np.eye(width)])
    more = max(0, count - len(axes))
    drawn = [rng.integers(-1, 2, width) if i % 2 == 0 else rng.uniform(-1, 1, width) for i in range(more)]
    actions: Floats = np.array([*axes, *drawn], dtype=np.float32)[:count]
    return actions


def constant_success(config: RunConfig, action: Floats) -> float:
    """Share of the final evaluation's episodes that `action` `[A]`, always the same, solves at some step."""
    count = config.evaluation.final_episodes
    solved = 0
    for first in range(0, count, EPISODES_AT_ONCE):
        numbers = range(first, min(count, first + EPISODES_AT_ONCE))
        # index 0 for all, as evaluation has it: only the episode's number decides its start
        env = make_env(config.env, len(numbers), seed=config.seed, indices=[0] * len(numbers), stream="final")
        env.reset(list(numbers))
        running, success = np.ones(len(numbers), dtype=bool), np.zeros(len(numbers), dtype=bool)
        while running.any():
            step = env.step(np.tile(action, (len(numbers), 1)))
            success |= step.success & running
            running &= ~(step.terminated | step.truncated)
        solved += int(success.sum())
        env.close()
    return solved / count

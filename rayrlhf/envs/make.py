"""Environments by name: the only way in.

The simulators are imported when they are asked for: they take seconds to load, and some are optional extras.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.gl import blaming_mujoco_gl, choose_backend
from rayrlhf.envs.instructed import InstructedEnv, instructed
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.interface import EnvSpec, VectorEnv
from rayrlhf.errors import UserError, nearest

_MODULES = {
    ("metaworld", "python"): "rayrlhf.envs.metaworld",
    ("metaworld", "envpool"): "rayrlhf.envs.envpool",
    ("gymnasium", "python"): "rayrlhf.envs.gymnasium",
    ("dmc", "python"): "rayrlhf.envs.dmc",
    ("toy", "python"): "rayrlhf.envs.toy",
}
_SEVERAL = {("metaworld", "python"), ("dmc", "python"), ("toy", "python")}
"""Where a run may have several tasks."""


class _Suite(Protocol):
    """What each of those modules offers."""

    def task_names(self) -> list[str]: ...

    def describe(self, options: EnvOptions) -> EnvSpec: ...

    def make(self, options: EnvOptions, num_envs: int, draws: Draws) -> VectorEnv: ...


def make_env(
    options: EnvOptions,
    num_envs: int,
    *,
    seed: int,
    indices: Sequence[int] | None = None,
    stream: str = "environment",
    instructions: Instructions | None = None,
) -> VectorEnv:
    """`N` environments that step together; `reset` them before the first step.

    indices: their global indices, 0 to N-1 by default: an environment's draws follow from its index, wherever it runs
    stream: `environment` for training, `evaluation` while it goes on, `final` at its end: no two share a draw, unless
        the start is fixed
    instructions: what observations end with, where `env.encoder` asks for it

    Raises `UserError` where suite, task or backend do not exist or lack what the options ask for.
    """
    numbers = tuple(range(num_envs)) if indices is None else tuple(indices)
    if num_envs < 1 or len(numbers) != num_envs:
        raise ValueError(f"{num_envs} environments with {len(numbers)} indices")
    if (instructions is None) != (options.encoder is None):
        raise ValueError("instructions are wanted exactly where env.encoder is set")
    suite, draws = _checked_suite(options), draws_of(options, seed, numbers, stream)
    env = suite.make(options, num_envs, draws)
    return env if instructions is None else InstructedEnv(env, draws, instructions)


def draws_of(options: EnvOptions, seed: int, indices: tuple[int, ...], stream: str = "environment") -> Draws:
    """From what the environments with these global indices start their episodes."""
    return Draws(seed, stream, indices, fixed_start=not options.random_start, tasks=len(options.tasks))


def task_names(suite: str, backend: str = "python") -> list[str]:
    """The names `env.task` may have."""
    return _suite(suite, backend).task_names()


def check_env(options: EnvOptions) -> EnvSpec:
    """What the environment will be like, without a step of it; raises `UserError` as `make_env` does."""
    spec = _checked_suite(options).describe(options)
    return spec if options.encoder is None else instructed(spec, options.instruction_width)


def _checked_suite(options: EnvOptions) -> _Suite:
    suite = _suite(options.suite, options.backend)
    if options.suite != "metaworld" and (options.reward_version != "v2" or not options.random_start):
        raise UserError(f"env.reward_version and env.random_start are MetaWorld's alone: {options.suite} has neither")
    if options.threads > 1 and options.backend != "envpool":
        raise UserError("env.threads is EnvPool's alone: use env.backend envpool, or more rollout.actors")
    if len(options.tasks) > 1 and (options.suite, options.backend) not in _SEVERAL:
        raise UserError(
            f"env.task names {len(options.tasks)} tasks: suite {options.suite}, backend {options.backend}, has one"
        )
    for task in options.tasks:
        _check_task(options, suite, task)
    return suite


def _check_task(options: EnvOptions, suite: _Suite, name: str) -> None:
    known = suite.task_names()
    task = name.removesuffix("-v3") if options.suite == "metaworld" else name
    foreign = options.suite == "gymnasium" and ":" in task  # `module:Id-v0`: registered when the module is imported
    if task not in known and not foreign:
        hint = (
            nearest(task, known) or f"; there are {len(known)}, such as {', '.join(known[:: max(1, len(known) // 4)])}"
        )
        raise UserError(f"unknown task {name!r} in suite {options.suite}{hint}")


def _suite(suite: str, backend: str) -> _Suite:
    module = _MODULES.get((suite, backend))
    if module is None:
        raise UserError(f"suite {suite} has no backend {backend}: use env.backend python")
    choose_backend()
    with blaming_mujoco_gl():
        return cast(_Suite, import_module(module))

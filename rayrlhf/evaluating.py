"""A trained policy from its checkpoint: evaluated, filmed or watched, without Ray."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayrlhf.algorithms import checkpoint
from rayrlhf.config import RunConfig
from rayrlhf.envs import check_env, make_env
from rayrlhf.envs.gl import rendering_problem
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.interface import VectorEnv
from rayrlhf.envs.video import write_video
from rayrlhf.envs.viewer import Viewer, open_viewer
from rayrlhf.errors import UserError
from rayrlhf.evaluation.episodes import EvaluationRequest, EvaluationResult, evaluate_episodes
from rayrlhf.language.instructions import instructions_of, read_instructions
from rayrlhf.policies import Actor
from rayrlhf.tracking import RunDirectory
from rayrlhf.trained import Trained, candidates, load_chosen

VIDEO_FPS = 40
"""One frame per simulator step: half real time of MetaWorld (80 steps a second), slow enough to see."""
PAUSE_FRAMES = 10
"""How long the last frame of an episode stands."""


def evaluate(
    target: Path, *, episodes: int, video: bool = False, render: bool = False, held_out_wordings: bool = False
) -> dict[str, Any]:
    """Evaluates the policy in `target`, a run's folder (its newest checkpoint) or one checkpoint.

    Returns a row of numbers with `video`, the path of what was filmed. UserError where there is no checkpoint, or
    where `video` or `render` cannot be had. With `held_out_wordings` the policy is told what to do in words that no run
    trains with.
    """
    if held_out_wordings and candidates(target)[0].config().env.encoder is None:
        raise UserError(f"{target} was trained without instructions (env.encoder): there are no other words for it")
    if render and len(candidates(target)[0].config().env.tasks) > 1:
        raise UserError("--render human shows one task, and this policy has several: --video films them")
    if video:
        _require_drawing(candidates(target)[0].config())
    trained = load_chosen(target)
    run, config, policy = trained.run, trained.config, trained.actor
    said = instructions_of(config.env, held_out=True) if held_out_wordings else read_instructions(run.instructions_file)
    request = EvaluationRequest(tuple(range(episodes)), "final", trained.ensemble)
    result = EvaluationResult.concatenate((_watched if render else evaluate_episodes)(policy, config, request, said))
    progress = trained.manifest["progress"]
    row: dict[str, Any] = {
        "name": run.name,
        "task": config.env.task,
        "suite": config.env.suite,
        "seed": config.seed,
        "checkpoint": trained.place.name,
        "env_steps": progress["env_steps"],
        "labels": progress["labels"],
        "eval_episodes": episodes,
        **result.row(config.seed),
    }
    if len(config.env.tasks) > 1:
        row["tasks"] = result.by_task(config.env.tasks)
    if video:
        row["video"] = str(film(policy, config, run.videos, progress["env_steps"], said))
    return row


def film_run(folder: RunDirectory) -> Path | None:
    """Films the newest policy of a run as its config says; none where it asks for none, or nothing is saved."""
    config, saved = folder.config(), checkpoint.by_age(folder.checkpoints)
    if not saved or not config.evaluation.videos:
        return None
    _require_drawing(config)
    trained = Trained.load(folder, saved[0])
    steps = trained.manifest["progress"]["env_steps"]
    return film(trained.actor, config, folder.videos, steps, read_instructions(folder.instructions_file))


def film(
    policy: Actor, config: RunConfig, folder: Path, env_steps: int, instructions: Instructions | None = None
) -> Path:
    """An MP4 of the final evaluation's first episodes; whoever calls knows that drawing works."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step{env_steps:09d}.mp4"
    episodes = range(max(1, config.evaluation.videos))
    write_video(path, _frames(policy, config, episodes, instructions), VIDEO_FPS)
    return path


def _frames(
    policy: Actor, config: RunConfig, episodes: Iterable[int], instructions: Instructions | None = None
) -> Iterator[NDArray[np.uint8]]:
    """One episode after another, with what lies between two decisions; each one's last frame stands a moment."""
    repeat = config.env.action_repeat
    every_step = {"action_repeat": 1, "horizon": check_env(config.env).horizon * repeat}
    options = config.env.model_copy(update=every_step)
    env = make_env(options, 1, seed=config.seed, indices=[0], stream="final", instructions=instructions)
    try:
        for number in episodes:
            for _ in _episode(policy, env, number, repeat):
                frame = env.render()
                yield frame
            yield from [frame] * PAUSE_FRAMES
    finally:
        env.close()


def _require_drawing(config: RunConfig) -> None:
    if config.env.backend == "envpool":
        raise UserError("the envpool backend cannot draw: videos need --env.backend python")
    problem = rendering_problem() if config.env.suite != "toy" else None
    if problem is not None:
        raise UserError(problem)


def _episode(policy: Actor, env: VectorEnv, number: int, repeat: int) -> Iterator[None]:
    """Plays one episode with each action for `repeat` steps, yielding before each step."""
    obs = env.reset([number])
    for count in itertools.count():
        if count % repeat == 0:
            with torch.inference_mode():
                action = policy.act(torch.from_numpy(obs), None).numpy()
        yield
        step = env.step(action)
        if (step.terminated | step.truncated).any():
            return
        obs = step.obs


def _watched(
    policy: Actor, config: RunConfig, request: EvaluationRequest, instructions: Instructions | None
) -> list[EvaluationResult]:
    """Evaluates one episode after another in a window."""
    viewers: dict[int, Viewer] = {}

    def show(env: VectorEnv) -> None:
        if id(env) not in viewers:
            viewers[id(env)] = open_viewer(env)
        if not viewers[id(env)].sync():
            raise UserError("the window was closed: nothing was evaluated; without --render human nobody need watch")

    try:
        return evaluate_episodes(policy, config, replace(request, side_by_side=1), instructions, watch=show)
    finally:
        for viewer in viewers.values():
            viewer.close()

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
from rayrlhf.envs.interface import VectorEnv
from rayrlhf.envs.video import write_video
from rayrlhf.envs.viewer import Viewer, open_viewer
from rayrlhf.errors import UserError
from rayrlhf.evaluation.episodes import EvaluationRequest, EvaluationResult, evaluate_episodes
from rayrlhf.policies import Actor
from rayrlhf.tracking import RunDirectory
from rayrlhf.trained import Trained, candidates, load_chosen

VIDEO_FPS = 40
"""One frame per simulator step: half real time of MetaWorld (80 steps a second), slow enough to see."""
PAUSE_FRAMES = 10
"""How long the last frame of an episode stands."""


def evaluate(target: Path, *, episodes: int, video: bool = False, render: bool = False) -> dict[str, Any]:
    """Evaluates the policy in `target`, a run's folder (its newest checkpoint) or one checkpoint.

    Returns a row of numbers with `video`, the path of what was filmed. UserError where there is no checkpoint, or
    where `video` or `render` cannot be had.
    """
    if video:
        _require_drawing(candidates(target)[0].config())
    trained = load_chosen(target)
    run, config, policy = trained.run, trained.config, trained.actor
    request = EvaluationRequest(tuple(range(episodes)), "final", trained.ensemble)
    if render:
        result = _watched(policy, config, request)
    else:
        result = EvaluationResult.concatenate(evaluate_episodes(policy, config, request))
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
    if video:
        row["video"] = str(film(policy, config, run.videos, progress["env_steps"]))
    return row


def film_run(folder: RunDirectory) -> Path | None:
    """Films the newest policy of a run as its config says; none where it asks for none, or nothing is saved."""
    config, saved = folder.config(), checkpoint.by_age(folder.checkpoints)
    if not saved or not config.evaluation.videos:
        return None
    _require_drawing(config)
    trained = Trained.load(folder, saved[0])
    return film(trained.actor, config, folder.videos, trained.manifest["progress"]["env_steps"])


def film(policy: Actor, config: RunConfig, folder: Path, env_steps: int) -> Path:
    """An MP4 of the final evaluation's first episodes; whoever calls knows that drawing works."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step{env_steps:09d}.mp4"
    write_video(path, _frames(policy, config, range(max(1, config.evaluation.videos))), VIDEO_FPS)
    return path


def _frames(policy: Actor, config: RunConfig, episodes: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
    """One episode after another, with what lies between two decisions; each one's last frame stands a moment."""
    repeat = config.env.action_repeat
    every_step = {"action_repeat": 1, "horizon": check_env(config.env).horizon * repeat}
    env = make_env(config.env.model_copy(update=every_step), 1, seed=config.seed, indices=[0], stream="final")
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


def _watched(policy: Actor, config: RunConfig, request: EvaluationRequest) -> EvaluationResult:
    """Evaluates one episode after another in a window."""
    viewers: dict[int, Viewer] = {}

    def show(env: VectorEnv) -> None:
        if id(env) not in viewers:
            viewers[id(env)] = open_viewer(env)
        if not viewers[id(env)].sync():
            raise UserError("the window was closed: nothing was evaluated; without --render human nobody need watch")

    try:
        return EvaluationResult.concatenate(
            evaluate_episodes(policy, config, replace(request, side_by_side=1), watch=show)
        )
    finally:
        for viewer in viewers.values():
            viewer.close()

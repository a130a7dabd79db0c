"""Deterministic episodes in environments of their own, measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayrlhf import seeding
from rayrlhf.config import EnvOptions, RunConfig
from rayrlhf.envs import make_env
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.interface import VectorEnv
from rayrlhf.evaluation.metrics import EpisodeResult, alignment, summarize
from rayrlhf.policies import Actor
from rayrlhf.preferences.fragments import Floats
from rayrlhf.rewards import RewardScorer


@dataclass(frozen=True)
class EvaluationRequest:
    """Which episodes to run: `stream` and the numbers in `episodes` decide the starts, whoever runs them.

    reward_weights: the ensemble's, to compare its judgement of these episodes with the true reward
    """

    episodes: tuple[int, ...]
    stream: str = "evaluation"
    reward_weights: dict[str, NDArray[Any]] | None = field(default=None, repr=False)
    side_by_side: int = 5
    """Episodes stepped at the same time in one process."""


@dataclass(frozen=True)
class EvaluationResult:
    """Episodes, and the sums of true and learned reward `[M]` over the whole segments they were cut into.

    `predicted` is empty where no reward model was asked.
    """

    episodes: EpisodeResult
    true: Floats
    predicted: Floats

    @staticmethod
    def concatenate(parts: "list[EvaluationResult]") -> "EvaluationResult":
        """All episodes and segments of `parts`, in order."""
        return EvaluationResult(
            EpisodeResult.concatenate([part.episodes for part in parts]),
            np.concatenate([part.true for part in parts]),
            np.concatenate([part.predicted for part in parts]),
        )

    def by_task(self, tasks: Sequence[str]) -> dict[str, float]:
        """Each task's success rate, of episodes 0, 1, ..., which have the tasks in turn."""
        own = {task: self.episodes.success[number :: len(tasks)] for number, task in enumerate(tasks)}
        return {task: float(success.mean()) for task, success in own.items() if len(success)}

    def row(self, seed: int) -> dict[str, float]:
        """One flat row of numbers; what is not defined (no success, no reward model) is left out."""
        summary = summarize(self.episodes)
        found: dict[str, float | None] = {
            "success_rate": summary.success_rate,
            "success_low": summary.success_low,
            "success_high": summary.success_high,
            "true_return_mean": summary.true_return_mean,
            "time_to_success": summary.time_to_success_mean,
            "smoothness": summary.smoothness_mean,
        }
        if len(self.predicted):
            agreement = alignment(self.true, self.predicted, seeding.generator(seed, "alignment"))
            found |= {
                "reward_model_accuracy": agreement.pair_accuracy,
                "reward_model_pearson": agreement.pearson,
                "reward_model_spearman": agreement.spearman,
            }
        return {name: value for name, value in found.items() if value is not None}


_KEPT: dict[str, tuple[tuple[Any, ...], VectorEnv]] = {}
"""By stream: the environments used last. Loading a simulator's model takes longer than an episode."""


def environments(
    options: EnvOptions, seed: int, stream: str, count: int, instructions: Instructions | None = None
) -> VectorEnv:
    """`count` environments, all of index 0, so that only an episode's number decides its start."""
    key = (options, seed, count, instructions)
    kept = _KEPT.get(stream)
    if kept is None or kept[0] != key:
        if kept is not None:
            kept[1].close()
        env = make_env(options, count, seed=seed, indices=[0] * count, stream=stream, instructions=instructions)
        _KEPT[stream] = kept = key, env
    return kept[1]


def evaluate_episodes(
    policy: Actor,
    run: RunConfig,
    request: EvaluationRequest,
    instructions: Instructions | None = None,
    *,
    watch: Callable[[VectorEnv], None] | None = None,
) -> list[EvaluationResult]:
    """Runs the requested episodes with `policy`'s deterministic actions, one result each, in their order.

    `watch` sees the environments before each step.
    """
    scorer: RewardScorer | None = None
    results: list[EvaluationResult] = []
    count = min(request.side_by_side, len(request.episodes))
    for start in range(0, len(request.episodes), request.side_by_side):
        numbers = request.episodes[start : start + count]
        env = environments(run.env, run.seed, request.stream, count, instructions)
        if request.reward_weights is not None and scorer is None:
            scorer = RewardScorer(run.reward, env.spec.obs_dim, env.spec.action_dim, "cpu", threads=1)
            scorer.load(request.reward_weights)
        episodes = play(acting(policy), env, numbers, watch)
        results += [_measure(episode, run.queries.segment_length, scorer) for episode in episodes]
    return results


@dataclass(frozen=True)
class Episode:
    """One episode's columns: obs and next obs `[L, O]`, action `[L, A]`, reward `[L]`, success `[L]`."""

    obs: Floats
    action: Floats
    next_obs: Floats
    reward: Floats
    success: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.reward)


Act = Callable[[Floats], Floats]
"""From observations `[N, O]` to actions `[N, A]` in [-1, 1]."""


def acting(policy: Actor) -> Act:
    """The policy's deterministic actions."""

    def act(obs: Floats) -> Floats:
        with torch.inference_mode():
            action: Floats = policy.act(torch.from_numpy(obs), None).numpy()
        return action

    return act


def play(
    act: Act, env: VectorEnv, numbers: Sequence[int], watch: Callable[[VectorEnv], None] | None = None
) -> list[Episode]:
    """The episodes of these `numbers`, at most one for each environment, to their ends."""
    # the last round may have fewer episodes than environments: the others play along unseen
    obs = env.reset([*numbers, *[numbers[0]] * (env.num_envs - len(numbers))])
    length = np.zeros(env.num_envs, dtype=np.int64)
    columns: list[tuple[Floats, Floats, Floats, Floats, NDArray[np.bool_]]] = []
    running = np.ones(env.num_envs, dtype=bool)
    while running.any():
        action = act(obs)
        if watch is not None:
            watch(env)
        step = env.step(action)
        columns.append((obs, action, step.next_obs, step.reward, step.success))
        length[running] += 1
        running &= ~(step.terminated | step.truncated)
        obs = step.obs
    # [L, N, ...] each, read per episode up to its own end
    stacked = [np.stack(column) for column in zip(*columns, strict=True)]
    return [Episode(*(column[: length[i], i] for column in stacked)) for i in range(len(numbers))]


def _measure(episode: Episode, segment_length: int, scorer: RewardScorer | None) -> EvaluationResult:
    whole = len(episode.reward) // segment_length * segment_length
    predicted = np.zeros(0, np.float32)
    if scorer is not None and whole:
        steps = scorer.score(torch.from_numpy(episode.obs[:whole]), torch.from_numpy(episode.action[:whole]))
        predicted = steps.cpu().numpy().reshape(-1, segment_length).sum(axis=1)
    true = episode.reward[:whole].reshape(-1, segment_length).sum(axis=1).astype(np.float32)
    return EvaluationResult(EpisodeResult.from_steps(episode.reward, episode.success, episode.action), true, predicted)

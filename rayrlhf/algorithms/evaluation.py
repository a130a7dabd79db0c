"""Evaluation episodes spread over the rollout actors."""

import time
from collections import deque

import ray

from rayrlhf.algorithms.roles import Ref
from rayrlhf.algorithms.rollouts import Rollouts
from rayrlhf.evaluation.episodes import EvaluationRequest, EvaluationResult


def spread(
    rollouts: Rollouts,
    policy: Ref,
    episodes: tuple[int, ...],
    stream: str,
    reward_weights: Ref | None,
) -> EvaluationResult:
    """Runs `episodes` with `policy`, each once and in order, whichever actor runs them and whoever dies meanwhile."""
    weights = ray.get(reward_weights) if reward_weights is not None else None
    if not rollouts.remote:
        request = EvaluationRequest(episodes, stream, weights)
        local = rollouts.group.local_env_runner.evaluate(weights=ray.get(policy), request=request)
        if isinstance(local, Exception):
            raise local
        return EvaluationResult.concatenate(local)
    runners = max(1, len(rollouts.runners()))
    open_shares = deque(share for i in range(runners) if (share := episodes[i::runners]))
    results: dict[int, EvaluationResult] = {}
    running: dict[int, tuple[int, ...]] = {}
    seen = time.monotonic()
    while open_shares or running:
        rollouts.check()
        healthy = rollouts.runners()
        for lost in set(running) - set(healthy):
            open_shares.append(running.pop(lost))
            rollouts.note_loss(lost)
        for runner in healthy:
            if open_shares and runner not in running:
                running[runner] = open_shares.popleft()
                rollouts.watch(runner, rollouts.timeout_seconds * len(running[runner]))
                arguments = {"weights": policy, "request": EvaluationRequest(running[runner], stream, weights)}
                rollouts.group.foreach_env_runner_async(
                    "evaluate", tag="evaluate", kwargs=arguments, remote_worker_ids=[runner]
                )
        for runner, result in rollouts.group.fetch_ready_async_reqs(tags="evaluate", timeout_seconds=0.01):
            if isinstance(result, Exception):
                raise result
            results |= dict(zip(running.pop(runner), result, strict=True))
        rollouts.end_what_hangs(running)
        if healthy:
            seen = time.monotonic()
            continue
        rollouts.restore()
        rollouts.require_back(seen)
    return EvaluationResult.concatenate([results[number] for number in episodes])

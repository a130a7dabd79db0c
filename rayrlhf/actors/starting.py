"""Which roles around the reward model share a process."""

from functools import partial
from typing import Any

import numpy as np

from rayrlhf.actors.hosts import RewardHost, RoleHandle, start_host
from rayrlhf.actors.roles import EnsembleRole, TrajectoryRole
from rayrlhf.config import RunConfig
from rayrlhf.envs.instructions import Instructions
from rayrlhf.placement import placement_of


def start_roles(
    run: RunConfig, name: str, obs_dim: int, action_dim: int, instructions: Instructions | None = None
) -> tuple[RoleHandle, list[RoleHandle]]:
    """The trajectory store, sharing the first process with the first members, and one process per further share."""
    shares = np.array_split(np.arange(run.reward.members), run.resources.reward_actors)
    marks = placement_of(run).marks_of("reward")
    ensemble = []
    for index, share in enumerate(shares):
        roles: dict[str, Any] = {"ensemble": partial(EnsembleRole, run, obs_dim, action_dim, share.tolist())}
        if index == 0:
            roles["trajectories"] = partial(TrajectoryRole, run, name, obs_dim, action_dim, instructions)
        resources = run.resources
        handles = start_host(
            roles,
            kind=RewardHost,
            name=f"{name}/reward-{index}",
            cpus=resources.reward_cpus,
            gpus=resources.reward_gpus,
            marks=marks,
            threads=resources.threads,
        )
        ensemble.append(handles["ensemble"])
        if index == 0:
            trajectories = handles["trajectories"]
    return trajectories, ensemble

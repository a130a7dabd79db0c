"""Processes that hold roles. A role is a plain class; which roles share a process is the placement's business."""

from collections.abc import Callable, Mapping
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrlhf.algorithms.roles import Ref


class Host:
    """Roles by name, built in this process."""

    def __init__(self, roles: Mapping[str, Callable[[], Any]], *, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._roles = {name: make() for name, make in roles.items()}

    def call(self, role: str, method: str, *args: Any) -> Any:
        """Calls `method` of `role`; references among `args` arrive as values."""
        return getattr(self._roles[role], method)(*args)


class RoleHandle:
    """One role in some process, called by name; every call returns a reference at once."""

    def __init__(self, host: Any, role: str) -> None:
        self.host, self._role = host, role

    def __call__(self, method: str, *args: Any) -> Ref:
        """Calls `method` with `args`, values or references."""
        reference: Ref = self.host.call.remote(self._role, method, *args)
        return reference


def start_host(
    roles: Mapping[str, Callable[[], Any]],
    *,
    cpus: float,
    gpus: float = 0.0,
    marks: Mapping[str, float] | None = None,
    threads: int = 1,
    node: str | None = None,
) -> dict[str, RoleHandle]:
    """Starts a process with `roles` and returns a handle for each.

    marks: resources that mark the nodes it may be on
    node: the id of the one node it is to be on
    """
    place = {} if node is None else {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    host = (
        ray.remote(Host)
        .options(num_cpus=cpus, num_gpus=gpus, resources=dict(marks or {}), **place)
        .remote(roles, threads=threads)
    )
    return {role: RoleHandle(host, role) for role in roles}

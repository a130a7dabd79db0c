"""Processes that hold roles. A role is a plain class; which roles share a process is the placement's business."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import ray
import torch
from ray.exceptions import ActorAlreadyExistsError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrlhf.algorithms.roles import Ref
from rayrlhf.logs import log_as


class Host:
    """Roles by name, built in this process, which calls itself `name`: `RUN/ROLE-NUMBER`."""

    def __init__(self, roles: Mapping[str, Callable[[], Any]], *, name: str, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._name = name
        log_as(*name.split("/"))
        self._roles = {name: make() for name, make in roles.items()}

    def __repr__(self) -> str:
        """What Ray puts before its lines of log, and shows in its dashboard."""
        return self._name

    def call(self, role: str, method: str, *args: Any) -> Any:
        """Calls `method` of `role`; references among `args` arrive as values."""
        return getattr(self._roles[role], method)(*args)


class RewardHost(Host):
    """Members of the reward ensemble, and the trajectory store in the first one: Ray shows a process by its class."""


class RendererHost(Host):
    """Draws clips."""


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
    kind: type[Host],
    name: str,
    cpus: float,
    gpus: float = 0.0,
    marks: Mapping[str, float] | None = None,
    threads: int = 1,
    node: str | None = None,
) -> dict[str, RoleHandle]:
    """Starts a process with `roles` and returns a handle for each.

    It is found as `name` in the namespace of this Ray job. Where another one has that name, as one of a run of the same
    name does in a namespace that both were told to use, it gets a number behind its own.

    marks: resources that mark the nodes it may be on
    node: the id of the one node it is to be on
    """
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "resources": dict(marks or {})}
    if node is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    for number in count(1):
        free = name if number == 1 else f"{name}-{number}"
        try:
            host = ray.remote(kind).options(name=free, **options).remote(roles, name=free, threads=threads)
            break
        except ActorAlreadyExistsError:
            continue
    return {role: RoleHandle(host, role) for role in roles}

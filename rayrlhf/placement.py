"""Which processes a run has, what each asks of Ray, and whether the nodes of a cluster can hold them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rayrlhf.config import RunConfig

Amounts = Mapping[str, float]
"""Ray's resources by name: `CPU`, `GPU` and what a cluster gives names of its own."""
MARK = 0.001
"""How much of a resource that only marks nodes a process asks for."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Process:
    """`count` equal processes of a role."""

    role: str
    count: int
    needs: dict[str, float]


@dataclass(frozen=True)
class Placement:
    """The processes of a run, the driver first. Evaluation has none of its own: rollout actors evaluate."""

    processes: tuple[Process, ...]

    def marks_of(self, role: str) -> dict[str, float]:
        """What marks the nodes for `role`; nothing where any node will do."""
        needs = next((process.needs for process in self.processes if process.role == role), {})
        return {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}

    def bundles(self) -> list[dict[str, float]]:
        """What each process asks for, the driver's first: the placement group of a run that Tune starts.

        What asks for nothing needs no place in it; Ray takes no empty one.
        """
        every = [dict(process.needs) for process in self.processes for _ in range(process.count)]
        return every[:1] + [needs for needs in every[1:] if needs]

    def cpus(self) -> float:
        """CPUs of all processes together."""
        return sum(bundle.get("CPU", 0.0) for bundle in self.bundles())

    def gpus(self) -> float:
        """GPUs of all processes together."""
        return sum(bundle.get("GPU", 0.0) for bundle in self.bundles())

    def lines(self) -> list[str]:
        """A table for people: role, count, what each asks for."""
        rows = [
            (process.role, f"{process.count}x", ", ".join(_amounts(process.needs)) or "nothing")
            for process in self.processes
        ]
        width = max(len(role) for role, _, _ in rows)
        return [f"{role:{width}}  {count:>4}  {needs}" for role, count, needs in rows]

    def misfit(self, nodes: Sequence[Amounts], *, with_driver: bool = False) -> str | None:
        """Why the processes do not fit on `nodes`; none where they do.

        The driver counts only where it is still to be placed, as that of a run under Tune. They are dealt out as Ray
        does it in the worst order for it: the largest first, each to the fullest node that can take it.
        """
        free = [_Node(node) for node in nodes]
        wanted = self.processes if with_driver else self.processes[1:]
        for process in sorted(wanted, key=_size, reverse=True):
            for placed in range(process.count):
                able = [node for node in free if node.fits(process.needs)]
                if not able:
                    return _why(wanted, process, placed, nodes)
                min(able, key=_Node.room).take(process.needs)
        return None


class _Node:
    """What is free on a node. GPUs are apart: a share is of one of them, and whole ones are free ones."""

    def __init__(self, there: Amounts) -> None:
        self._there = dict(there)
        gpus = self._there.pop("GPU", 0.0)
        self._gpus = [1.0] * math.floor(gpus + _ROUNDING)
        if gpus - len(self._gpus) > _ROUNDING:
            self._gpus.append(gpus - len(self._gpus))  # where shares are free of several, nobody says of which

    def fits(self, needs: Amounts) -> bool:
        """Whether one process more can be here."""
        others = all(
            self._there.get(name, 0.0) >= amount - _ROUNDING for name, amount in needs.items() if name != "GPU"
        )
        return others and self._gpus_for(needs.get("GPU", 0.0)) is not None

    def take(self, needs: Amounts) -> None:
        """It is here."""
        for name, amount in needs.items():
            if name != "GPU":
                self._there[name] = self._there.get(name, 0.0) - amount
        wanted = needs.get("GPU", 0.0)
        for index in self._gpus_for(wanted) or ():
            self._gpus[index] -= min(wanted, 1.0)

    def room(self) -> tuple[float, float]:
        """For comparing how full nodes are."""
        return sum(self._gpus), self._there.get("CPU", 0.0)

    def _gpus_for(self, wanted: float) -> list[int] | None:
        """Which GPUs are taken: of a share the fullest one it fits on, as Ray does it; none where there are too few."""
        if wanted <= _ROUNDING:
            return []
        each, count = (wanted, 1) if wanted <= 1 else (1.0, math.ceil(wanted - _ROUNDING))
        able = [index for index, free in enumerate(self._gpus) if free >= each - _ROUNDING]
        return sorted(able, key=lambda index: self._gpus[index])[:count] if len(able) >= count else None


def placement_of(run: RunConfig) -> Placement:
    """The processes of `run`."""
    resources, rollout = run.resources, run.rollout
    durable, passing = _mark(resources.durable_on), _mark(resources.rollout_on)
    mine = {"CPU": resources.driver_cpus}
    if resources.learners == 0:
        mine["GPU"] = resources.gpus_per_learner
    learner = {"CPU": resources.learner_cpus, "GPU": resources.gpus_per_learner}
    reward = {"CPU": resources.reward_cpus, "GPU": resources.reward_gpus}
    found = [
        Process("driver", 1, mine | durable),
        Process("rollout", rollout.actors, {"CPU": resources.rollout_cpus} | passing),
        Process("learner", resources.learners, learner | durable),
    ]
    if run.asks:
        found.append(Process("reward", resources.reward_actors, reward | durable))
    if run.shows_clips:
        found.append(Process("renderer", 1, {"CPU": resources.renderer_cpus} | durable))
    return Placement(tuple(_without_zeros(process) for process in found if process.count))


def _why(every: Sequence[Process], process: Process, placed: int, nodes: Sequence[Amounts]) -> str:
    wanted, there = ", ".join(_amounts(process.needs)), _of(nodes)
    missing = [name for name in process.needs if not any(name in node for node in nodes)]
    if nodes and missing:
        return f"no node has the resource {' or '.join(missing)}, which {process.role} wants"
    if not any(_Node(node).fits(process.needs) for node in nodes):
        return f"no node has the {wanted} that {process.role} wants; there is {there}"
    total: dict[str, float] = {}
    for each in every:
        for name, amount in each.needs.items():
            total[name] = total.get(name, 0.0) + each.count * amount
    together = ", ".join(_amounts({name: total[name] for name in ("CPU", "GPU") if name in total}))
    share = f"{placed} of {process.count} {process.role} processes ({wanted} each)"
    return f"there is room for {share}: the run wants {together}, there is {there}"


def _without_zeros(process: Process) -> Process:
    return Process(process.role, process.count, {name: amount for name, amount in process.needs.items() if amount})


def _mark(name: str | None) -> dict[str, float]:
    return {} if name is None else {name: MARK}


def _size(process: Process) -> tuple[float, ...]:
    needs = process.needs
    return len(needs), needs.get("GPU", 0.0), needs.get("CPU", 0.0)


def _amounts(needs: Amounts) -> Iterator[str]:
    for name, amount in needs.items():
        yield f"on {name}" if name not in ("CPU", "GPU") else f"{amount:g} {name}{'s' if amount > 1 else ''}"


def _of(nodes: Sequence[Amounts]) -> str:
    """Their CPUs and GPUs, equal ones together."""
    kinds: dict[str, int] = {}
    for node in sorted(nodes, key=lambda node: (-node.get("GPU", 0.0), -node.get("CPU", 0.0))):
        gpus = f" and {_counted(node['GPU'], 'GPU')}" if node.get("GPU") else ""
        kind = f"{_counted(node.get('CPU', 0.0), 'CPU')}{gpus}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return "; ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.items()) or "no node"


def _counted(amount: float, name: str) -> str:
    return f"{math.floor(amount * 100 + _ROUNDING) / 100:g} {name}{'' if amount == 1 else 's'}"

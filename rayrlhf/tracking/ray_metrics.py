"""Metrics for Prometheus, through Ray: what there is, under which name, and who records it.

Where Ray runs no agent that exports them, as in a Ray that a run starts for itself, a recorded number is forgotten.
"""

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from rayrlhf.tracking.directory import RunDirectory

REFRESH_SECONDS = 2.0
"""How often gauges are recorded anew: Ray forgets what was not recorded for two of its reports (of 10 s by default)."""
ANSWER_SECONDS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the histogram of how long people take."""


@dataclass(frozen=True)
class Entry:
    """One metric.

    name: as it is recorded      tags: besides `run` and `role`
    key: of a training row, where it comes from one (of a speed: the count that it is the speed of)
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    role: Literal["training", "queue", "policy"]
    description: str
    key: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """Its name in Prometheus; a histogram's series are called so, and `_bucket`, `_sum` or `_count`."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


def _training(name: str, unit: str, description: str, key: str | None = None) -> Entry:
    return Entry(f"rayrlhf_{name}", "gauge", unit, "training", description, key or name, ("task",))


ENTRIES = (
    _training("env_steps", "steps", "environment steps of the run so far"),
    _training("env_steps_per_second", "steps/s", "environment steps a second since the row before", "env_steps"),
    _training("updates", "updates", "updates of the policy so far"),
    _training("updates_per_second", "updates/s", "updates a second since the row before", "updates"),
    _training("max_staleness", "learner calls", "largest staleness of a fragment so far"),
    _training("fragments_in_flight", "fragments", "fragments asked of rollout actors and not there yet"),
    _training("sessions", "sessions", "sessions that are over"),
    _training("labels", "labels", "labels of the run so far"),
    _training("label_budget", "labels", "labels that the run may spend"),
    _training("answers", "answers", "answers so far, skips included"),
    _training("open_questions", "questions", "questions that were put and may still be answered"),
    _training("reward_version", "fits", "fits of the reward ensemble so far"),
    _training("reward_loss", "nats", "loss of the newest fit, mean of the members"),
    _training("reward_accuracy", "fraction", "labels that the newest fit tells right, mean of the members"),
    _training("session_query_seconds", "s", "newest session: selecting its questions", "query_seconds"),
    _training("session_teacher_seconds", "s", "newest session: the teacher", "teacher_seconds"),
    _training("session_fit_seconds", "s", "newest session: the fit", "fit_seconds"),
    _training("success_rate", "fraction", "episodes solved in the newest evaluation"),
    _training("true_return", "reward", "mean true return in the newest evaluation", "true_return_mean"),
    _training("train_success", "fraction", "episodes solved among the newest ten that trained"),
    _training("train_return", "reward", "mean true return of these"),
    _training("wall_seconds", "s", "how long the run has taken, from all its processes"),
    Entry(
        "rayrlhf_queue_questions",
        "gauge",
        "questions",
        "queue",
        "questions by status: open, leased (open, and being looked at), label, skip, disputed, expired",
        tags=("status",),
    ),
    Entry("rayrlhf_queue_leases", "counter", "leases", "queue", "questions handed out to annotators"),
    Entry("rayrlhf_queue_answers", "counter", "answers", "queue", "answers stored, those taken back later included"),
    Entry("rayrlhf_queue_answer_seconds", "histogram", "s", "queue", "from the lease to the answer"),
    Entry(
        "rayrlhf_policy_env_steps",
        "gauge",
        "steps",
        "policy",
        "environment steps that the served version was trained for",
        tags=("task", "model"),
    ),
    Entry(
        "rayrlhf_policy_exchanges",
        "counter",
        "versions",
        "policy",
        "versions that took another one's place while requests came",
        tags=("task", "model"),
    ),
)
"""Every metric of ours."""
_BY_NAME = {entry.name: entry for entry in ENTRIES}
_TRAINING = tuple(entry for entry in ENTRIES if entry.role == "training")


class Meters:
    """Records metrics with the same `tags`; a gauge stays what it was set to as long as this object is held.

    For threads. Costs nothing where Ray does not run.
    """

    def __init__(self, **tags: str) -> None:
        self._tags = tags
        self._made: dict[str, Any] = {}
        self._gauges: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._keeper: threading.Thread | None = None

    def record(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Sets a gauge, adds to a counter or observes for a histogram."""
        if not ray.is_initialized():  # nothing of Ray's metrics may be made before Ray has read how it is to run
            return
        entry = _BY_NAME[name]
        if name not in self._made:
            self._made[name] = _make(entry)
        said = {"role": entry.role, **self._tags, **tags}
        if entry.kind == "gauge":
            self._gauges[name, frozenset(tags.items())] = value
            self._keep()
        getattr(self._made[name], {"gauge": "set", "counter": "inc", "histogram": "observe"}[entry.kind])(value, said)

    def again(self) -> None:
        """Records every gauge as it was set last."""
        for (name, tags), value in list(self._gauges.items()):
            self.record(name, value, **dict(tags))

    def _keep(self) -> None:
        if self._keeper is None:
            arguments = (weakref.ref(self),)
            self._keeper = threading.Thread(target=_keep_alive, args=arguments, name="gauges", daemon=True)
            self._keeper.start()


class RunMeters:
    """A training run's gauges, from its rows of metrics."""

    def __init__(self, run: RunDirectory) -> None:
        config = run.config()
        self._meters = Meters(run=run.name, task=config.env.task)
        self._budget = config.queries.budget if config.asks else 0
        self._before: Mapping[str, float] | None = None
        self._at = 0.0

    def show(self, row: Mapping[str, float]) -> None:
        """Records what of `row` has an entry."""
        now, before = time.monotonic(), self._before
        found = {**row, "label_budget": float(self._budget)}
        for entry in _TRAINING:
            assert entry.key is not None
            if entry.key not in found:
                continue
            value = found[entry.key]
            if entry.name.endswith("_per_second"):
                if before is None or now <= self._at:
                    continue
                value = max(0.0, value - before.get(entry.key, value)) / (now - self._at)
            self._meters.record(entry.name, value)
        self._before, self._at = found, now


def _keep_alive(held: "weakref.ref[Meters]") -> None:
    while True:
        time.sleep(REFRESH_SECONDS)
        if (meters := held()) is None:
            return
        meters.again()
        del meters


def _make(entry: Entry) -> Any:
    tags = ("run", "role", *entry.tags)
    if entry.kind == "histogram":
        return Histogram(entry.name, entry.description, list(ANSWER_SECONDS), tags)
    return (Gauge if entry.kind == "gauge" else Counter)(entry.name, entry.description, tags)

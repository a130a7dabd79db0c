"""Requests to rollout actors, and the fragments that come back, by reference.

At most one fragment per actor is on its way: that is the back-pressure. An actor that dies is dropped here until the
process that Ray starts in its place answers; its environments then start their next episodes. One that hangs is made
to die.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rayrlhf.algorithms.collector import CollectReport, Mode
from rayrlhf.algorithms.env_runner import RolloutActor
from rayrlhf.algorithms.roles import Ref
from rayrlhf.errors import HeldUpError
from rayrlhf.logs import event

_log = logging.getLogger(__name__)

CHECK_SECONDS = 0.05
"""How often a wait for fragments looks whether it is to stop."""
PING_SECONDS = 0.2
"""How often a rollout actor that died is asked whether it is back, where Ray refuses to ask it."""
START_SECONDS = 60.0
"""So long at least a rollout actor may take to start before that is taken to hang."""
STRAGGLER = 3.0
"""A rollout actor straggles where its fragment takes so many times as long as the others' newest,"""
STRAGGLER_SECONDS = 0.3
"""and longer than this."""
LOST_SECONDS = 180.0
LOSSES_IN_A_ROW = 3
"""Deaths per rollout actor, without anything returned in between, that are taken for bad luck."""
LOCAL = 0
"""The id of the runner in the driver, used when there are no rollout actors."""


@dataclass(frozen=True)
class Arrival:
    """One fragment, by reference, and the facts about it. number: how many its runner has been asked for, with it."""

    runner: int
    number: int
    fragment: Ref
    report: CollectReport


@dataclass
class _Ping:
    """The question whether an actor is back."""

    answer: Ref
    asked: float
    overdue: float


@dataclass
class Rollouts:
    """What is asked of the rollout actors of `group`. `numbers` and `episodes` go into the checkpoint."""

    group: EnvRunnerGroup
    restore: Callable[[], Any]
    check: Callable[[], None]
    """Called while waiting; raises to stop the wait."""
    timeout_seconds: float = 300.0
    """After which a rollout actor that has not returned a fragment is taken to hang."""
    lost_after_seconds: float = LOST_SECONDS
    """How long none may be there before training is held up."""
    numbers: dict[int, int] = field(default_factory=dict)
    """By runner: how many fragments were asked of it."""
    episodes: dict[int, list[int]] = field(default_factory=dict)
    """By runner: the numbers of its running episodes, or of those that it is to begin."""
    at_start: dict[int, bool] = field(default_factory=dict)
    _to_begin: set[int] = field(default_factory=set)
    _losses: int = 0
    _gone: set[int] = field(default_factory=set)
    _in_flight: dict[int, int] = field(default_factory=dict)
    _asked_at: dict[int, float] = field(default_factory=dict)
    _took: dict[int, float] = field(default_factory=dict)
    """By runner: seconds until its newest fragment was seen."""
    _watched: dict[int, float] = field(default_factory=dict)
    _fragments: dict[int, Ref] = field(default_factory=dict)
    _reports: dict[int, Any] = field(default_factory=dict)
    _pings: dict[int, _Ping] = field(default_factory=dict)

    @property
    def remote(self) -> bool:
        """Whether there are rollout actors, or only the driver's own environments."""
        return bool(self.group.num_remote_env_runners() > 0)

    @property
    def in_flight(self) -> int:
        """Fragments that were asked for and are not there yet."""
        return len(self._in_flight)

    def runners(self) -> list[int]:
        """Ids of the runners that can be asked now."""
        return sorted(self.group.healthy_worker_ids()) if self.remote else [LOCAL]

    def request(self, weights: Ref, version: int, mode: Mode) -> None:
        """Asks every idle runner for a fragment acted with `weights` of `version`."""
        for runner in self.runners():
            if runner in self._in_flight:
                continue
            number = self.numbers.get(runner, 0)
            self.numbers[runner] = number + 1
            self._in_flight[runner], self._asked_at[runner] = version, time.monotonic()
            self.watch(runner, self.timeout_seconds)
            arguments = {"weights": weights, "version": version, "mode": mode, "fragment": number}
            arguments |= {"running": self.episodes.get(runner), "begin": runner in self._to_begin}
            self._to_begin.discard(runner)
            self._send(runner, arguments)

    def _send(self, runner: int, arguments: dict[str, Any]) -> None:
        if self.remote:
            for method, kwargs in (("sample", arguments), ("report", {})):
                self.group.foreach_env_runner_async(method, tag=method, kwargs=kwargs, remote_worker_ids=[runner])
            return
        local: RolloutActor = self.group.local_env_runner
        fragment = local.sample(**{**arguments, "weights": ray.get(arguments["weights"])})
        self._fragments[LOCAL], self._reports[LOCAL] = ray.put(fragment), local.report()

    def collect(self, *, version: int, max_staleness: int, everything: bool = False) -> list[Arrival]:
        """Waits for at least one fragment and for all whose staleness would pass `max_staleness`; in runners' order.

        A straggler is not waited for: its fragment is taken when it comes, however stale. With `everything`, waits for
        all that are on their way. Raises what broke a fragment (`EnvironmentBroken` where
        an environment failed), and HeldUpError when every rollout actor is gone and none comes back.
        """
        while True:
            self.check()
            ready = self._ready()  # taken all at once: a stop in between leaves them on their way
            missing = [(runner, asked) for runner, asked in self._in_flight.items() if runner not in ready]
            overdue = any(
                everything or (version - asked >= max_staleness and not self._straggles(runner))
                for runner, asked in missing
            )
            if ready and not overdue:
                return [self._take(runner) for runner in ready]
            if not self._in_flight:
                self._wait_for_runners()
                return []

    def _ready(self) -> list[int]:
        """Runners whose fragment and report are here, in order. Raises what broke a fragment."""
        if self.remote:
            self._sleep_until_a_report()
            fetch = self.group.fetch_ready_async_reqs
            self._reports |= dict(fetch(tags="report", timeout_seconds=0.0))
            self._fragments |= dict(fetch(tags="sample", timeout_seconds=0.0, return_obj_refs=True))
            lost = set(self._in_flight) - set(self.group.healthy_worker_ids())
            self.forget(lost)
            for runner in lost:
                self.note_loss(runner)
            self.end_what_hangs(set(self._in_flight) - set(self._reports))
        ready = sorted(set(self._reports) & set(self._fragments))
        for runner in self._asked_at.keys() & set(ready):
            self._took[runner] = time.monotonic() - self._asked_at.pop(runner)
        for runner in ready:
            if isinstance(broken := self._reports[runner], Exception):
                raise broken
        return ready

    def _straggles(self, runner: int) -> bool:
        """Whether `runner` takes, or took last time, far longer than the others do."""
        others = [took for other, took in self._took.items() if other != runner]
        if not others:
            return False
        longest = max(time.monotonic() - self._asked_at[runner], self._took.get(runner, 0.0))
        return longest > max(STRAGGLER * median(others), STRAGGLER_SECONDS)

    def _sleep_until_a_report(self) -> None:
        """Returns with the first; RLlib's own wait is for all, and asking it again and again takes a core's tenth."""
        reports, _, _ = self.group._worker_manager._filter_calls_by_tag("report")
        if reports:
            ray.wait(reports, num_returns=1, timeout=CHECK_SECONDS, fetch_local=False)

    def _take(self, runner: int) -> Arrival:
        fragment, report = self._fragments.pop(runner), self._reports.pop(runner)
        if report is None:  # it has collected nothing: what it was given was lost with who made it
            ray.get(fragment)
        self._in_flight.pop(runner, None)
        self._losses = 0
        self.episodes[runner] = list(report.episodes)
        self.at_start[runner] = report.at_start
        return Arrival(runner, self.numbers[runner], fragment, report)

    def forget(self, runners: Iterable[int]) -> None:
        """Drops what was asked of runners that died: RLlib has dropped it too, and answers that had come with it."""
        for runner in runners:
            for book in (self._in_flight, self._fragments, self._reports, self._asked_at, self._took):
                book.pop(runner, None)

    def note_loss(self, runner: int) -> None:
        """Counts a rollout actor that died while it was asked for something; HeldUpError where it happens every time.

        Once a death, however much was asked of it.
        """
        if runner in self._gone:
            return
        self._gone.add(runner)
        self._losses += 1
        _log.info("rollout-%d died; Ray starts it again", runner, extra=event("lost", who=f"rollout-{runner}"))
        if self._losses > LOSSES_IN_A_ROW * self.group.num_remote_env_runners():
            raise HeldUpError(
                f"rollout actors died {self._losses} times without returning anything: see ray.log in the run's folder"
            )

    def watch(self, runner: int, seconds: float) -> None:
        """Gives `runner` so long to return what it was just asked for."""
        self._watched[runner] = time.monotonic() + seconds

    def end_what_hangs(self, busy: Iterable[int]) -> None:
        """Ends those of the `busy` runners whose time is over; they come back like any that died."""
        for runner in busy:
            if time.monotonic() > self._watched[runner]:
                self._watched[runner] = float("inf")
                self._end(runner)

    def back(self) -> list[int]:
        """Rollout actors that had died and answer again. Waits for none: RLlib's own probing stops training meanwhile.

        One that does not come back is started anew after `timeout_seconds`, and a minute at least.
        """
        manager, now = self.group._worker_manager, time.monotonic()
        for runner in set(manager.actor_ids()) - set(manager.healthy_actor_ids()):
            actor = manager.actors()[runner]
            if runner not in self._pings:
                self._pings[runner] = _Ping(actor.ping.remote(), now, now + max(self.timeout_seconds, START_SECONDS))
            ping = self._pings[runner]
            if ray.wait([ping.answer], timeout=0)[0]:
                if self._answers(ping):
                    manager.set_actor_state(runner, healthy=True)
                    continue  # however late this is seen
                if now > ping.asked + PING_SECONDS:
                    ping.answer, ping.asked = actor.ping.remote(), now
            if now > ping.overdue:
                self._end(runner)
                del self._pings[runner]
        restored = sorted(manager._restored_actors)
        manager._restored_actors.clear()
        for runner in restored:
            self._pings.pop(runner, None)
        self._gone -= set(restored)
        self.forget(restored)
        return restored

    @staticmethod
    def _answers(ping: _Ping) -> bool:
        try:
            ray.get(ping.answer)
        except RayError:
            return False
        return True

    def _end(self, runner: int) -> None:
        who = f"rollout-{runner}"
        _log.warning("%s does not return: it is started anew", who, extra=event("hangs", who=who))
        ray.kill(self.group._worker_manager.actors()[runner], no_restart=False)

    def asked(self) -> dict[int, int]:
        """By runner: how many fragments came of it, or were lost with it; those on their way are not counted."""
        return {runner: number - (runner in self._in_flight) for runner, number in self.numbers.items()}

    def _wait_for_runners(self) -> None:
        since = time.monotonic()
        while not self.runners():
            self.check()
            self.restore()
            self.require_back(since)
            time.sleep(0.1)

    def require_back(self, since: float) -> None:
        """HeldUpError where all rollout actors have been gone for too long, `since` a moment of the monotonic clock."""
        if time.monotonic() - since > self.lost_after_seconds:
            raise HeldUpError(
                f"every rollout actor is lost, and none came back in {self.lost_after_seconds:.0f} seconds: see that "
                "there is room for them; resources.wait_minutes has a run wait for longer"
            )

    def place(self, runner: int, episodes: list[int]) -> None:
        """Lets the environments of `runner` begin `episodes` with its next fragment. Waits for nobody."""
        self.episodes[runner], self.at_start[runner] = episodes, True
        self._to_begin.add(runner)

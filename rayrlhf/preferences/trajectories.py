"""Recent episodes, held so that segments can be drawn from them. Lives inside one Ray actor.

Fragments cut episodes anywhere; the store joins them again. It keeps the last `capacity` ended episodes and those
still running (at most one per environment), and what it holds does not depend on where the fragments were cut.

Limit: where a fragment was lost or thrown away as stale, an episode has a hole. It is then kept in parts, each a run
of consecutive steps, and no segment crosses the hole; an episode with a hole counts for no return.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from rayrlhf.errors import UserError
from rayrlhf.preferences.fragments import Bools, Floats, Fragment, Integers
from rayrlhf.preferences.segments import Segments

Chosen = Callable[[int], bool]
"""Whether the segments of an episode, by its id, count."""


def every_episode(episode: int) -> bool:
    """They do."""
    return True


_SMALLEST_BUFFER = 64
_RETURNS_KEPT = 100


@dataclass
class _Part:
    """Consecutive transitions of one episode: the first `length` of `rows` `[C, W]`; `first` is the step of row 0."""

    episode: int
    first: int
    rows: Floats
    length: int = 0


class TrajectoryStore:
    """The last `capacity` ended episodes and the running ones, as rows of observation, action, reward and success."""

    def __init__(self, capacity: int, *, obs_dim: int, action_dim: int) -> None:
        if capacity < 1:
            raise ValueError(f"a trajectory store of {capacity} episodes")
        self._capacity = capacity
        self._obs_dim = obs_dim
        self._widths = (obs_dim, action_dim)
        self._width = obs_dim + action_dim + 2
        self._running: dict[int, _Part] = {}
        self._ended: deque[_Part] = deque()
        self._spare: list[Floats] = []
        self._finished: deque[tuple[float, int]] = deque(maxlen=max(capacity, _RETURNS_KEPT))

    @property
    def num_episodes(self) -> int:
        """Stored episodes, running ones included; an episode with holes counts once per part."""
        return len(self._ended) + len(self._running)

    def add(self, fragment: Fragment) -> None:
        """Takes in a fragment: one copy per stretch of an episode, none per step."""
        widths = fragment.obs.shape[2], fragment.action.shape[2]
        if widths != self._widths:
            raise ValueError(f"fragment with observation and action widths {widths} in a store for {self._widths}")
        packed = _pack(fragment)
        done = fragment.terminated | fragment.truncated
        for column, begin, end in _stretches(fragment, done):
            episode, step = int(fragment.episode[begin, column]), int(fragment.step[begin, column])
            part = self._open(episode, step)
            self._append(part, packed[begin:end, column])
            if done[end - 1, column]:
                self._finish(part)
            elif end < len(done):  # the environment went on with something else: this episode will never end
                self._end(part)

    def _open(self, episode: int, step: int) -> _Part:
        """The part that transition `step` of `episode` continues; a new one if none does."""
        part = self._running.get(episode)
        if part is not None and part.first + part.length == step:
            return part
        if part is not None:
            self._end(part)
        rows = self._spare.pop() if self._spare else np.empty((_SMALLEST_BUFFER, self._width), np.float32)
        self._running[episode] = _Part(episode, step, rows)
        return self._running[episode]

    def _append(self, part: _Part, rows: Floats) -> None:
        """Copies `rows` `[K, W]` to the end of `part`, doubling its buffer where it is full."""
        end = part.length + len(rows)
        if end > len(part.rows):
            grown = np.empty((max(end, 2 * len(part.rows)), self._width), np.float32)
            grown[: part.length] = part.rows[: part.length]
            part.rows = grown
        part.rows[part.length : end] = rows
        part.length = end

    def _finish(self, part: _Part) -> None:
        """Ends `part` and, if it is the whole episode, notes its true return."""
        if part.first == 0:
            self._finished.append((float(part.rows[: part.length, -2].sum(dtype=np.float64)), part.length))
        self._end(part)

    def _end(self, part: _Part) -> None:
        del self._running[part.episode]
        self._ended.append(part)
        while len(self._ended) > self._capacity:
            self._spare.append(self._ended.popleft().rows)

    def close_open_episodes(self, chosen: Chosen = every_episode) -> None:
        """Ends the running episodes whose ids are `chosen` as they are; their environments start anew.

        For a resume (all of them) or a lost actor (those of its environments).
        """
        for episode in sorted(filter(chosen, self._running)):
            self._end(self._running[episode])

    def legal_starts(self, length: int, chosen: Chosen = every_episode) -> int:
        """How many different segments of `length` transitions the chosen episodes hold."""
        return int(self._starts(length, chosen).sum())

    def _starts(self, length: int, chosen: Chosen) -> Integers:
        """Legal starts per part, in the order of `_parts`; none in those that are not chosen."""
        if length < 1:
            raise ValueError(f"segments of {length} transitions")
        lengths = np.array([part.length if chosen(part.episode) else 0 for part in self._parts()], dtype=np.int64)
        return np.maximum(lengths - length + 1, 0)

    def _parts(self) -> list[_Part]:
        """Ended parts, oldest first, then running ones by id: an order that does not depend on the cuts."""
        return list(self._ended) + [self._running[episode] for episode in sorted(self._running)]

    def sample_segments(
        self, count: int, length: int, rng: np.random.Generator, *, margin: int = 0, chosen: Chosen = every_episode
    ) -> Segments:
        """`count` segments of `length` transitions, independent and uniform over all legal starts of chosen episodes.

        With `margin` they come with so many transitions of context on either side, as far as these are stored.

        Raises:
            UserError: no stored episode is as long as a segment.
        """
        last = np.cumsum(self._starts(length, chosen))
        if count and not (len(last) and last[-1]):
            raise UserError(
                f"no stored episode has {length} transitions yet: lower queries.segment_length or explore for longer"
            )
        drawn = rng.integers(last[-1] if len(last) else 1, size=count)
        index = np.searchsorted(last, drawn, side="right")
        parts = self._parts()
        # A start counts from the beginning of its part: the starts of all earlier parts are taken off.
        starts = drawn - np.concatenate([[0], last])[index]
        rows = np.full((count, length + 2 * margin, self._width), np.nan, np.float32)
        for row, i, start in zip(rows, index.tolist(), starts.tolist(), strict=True):
            part = parts[i]
            begin, end = max(0, start - margin), min(part.length, start + length + margin)
            row[begin - start + margin : end - start + margin] = part.rows[begin:end]
        episode = np.array([part.episode for part in parts], dtype=np.int64)[index]
        first = np.array([part.first for part in parts], dtype=np.int64)[index]
        return self._segments(rows, episode, first + starts, margin)

    def table(self) -> tuple[Floats, Integers]:
        """Observations and actions side by side `[M, O + A]`, part after part, and the parts' lengths."""
        parts = self._parts()
        rows = [np.empty((0, self._width), np.float32), *(part.rows[: part.length] for part in parts)]
        return np.concatenate(rows)[:, :-2], np.array([part.length for part in parts], dtype=np.int64)

    def observed(self, episode: int, start: int, length: int) -> Floats | None:
        """The observations `[T, O]` of `length` transitions of `episode` from `start`; none unless all are stored."""
        for part in self._parts():
            offset = start - part.first
            if part.episode == episode and offset >= 0 and offset + length <= part.length:
                return part.rows[offset : offset + length, : self._obs_dim].copy()
        return None

    def _segments(self, rows: Floats, episode: Integers, start: Integers, margin: int) -> Segments:
        """Segments from packed rows `[N, margin + T + margin, W]`."""
        context = None
        if margin:
            context = np.concatenate([rows[:, :margin, :-2], rows[:, -margin:, :-2]], axis=1)
            rows = rows[:, margin:-margin]
        return Segments(
            obs=rows[..., : self._obs_dim].copy(),
            action=rows[..., self._obs_dim : -2].copy(),
            reward=rows[..., -2].copy(),
            success=rows[..., -1] != 0,
            episode=episode,
            start=start,
            context=context,
        )

    def recent_returns(self, count: int = 10) -> list[float]:
        """True returns of the newest `count` whole episodes, newest last; at most 100 or the capacity are known."""
        return [value for value, _ in self._finished][-count:]

    def recent_lengths(self, count: int = 10) -> list[int]:
        """Lengths of the newest `count` whole episodes, newest last."""
        return [length for _, length in self._finished][-count:]

    def typical_return(self, length: int, count: int = 10) -> float:
        """Mean true return of the newest `count` whole episodes, scaled to `length` steps; 0 if there are none.

        The scale is `length` over the mean episode length, which for episodes of one length is B-Pref's. B-Pref also
        counts a return of 0 before the first episode; that one is left out here.
        """
        lengths = self.recent_lengths(count)
        return sum(self.recent_returns(count)) / sum(lengths) * length if lengths else 0.0

    def state(self) -> dict[str, np.ndarray]:
        """Everything the store holds, as flat arrays."""
        parts = self._parts()
        columns = {
            "episode": [part.episode for part in parts],
            "first": [part.first for part in parts],
            "length": [part.length for part in parts],
            "running": [0] * len(self._ended) + [1] * len(self._running),
            "finished_length": [length for _, length in self._finished],
        }
        empty = [np.empty((0, self._width), np.float32)]
        return {
            **{name: np.array(values, dtype=np.int64) for name, values in columns.items()},
            "finished_return": np.array([value for value, _ in self._finished], dtype=np.float64),
            "rows": np.concatenate([part.rows[: part.length] for part in parts] or empty),
        }

    @staticmethod
    def obs_dim_of(state: Mapping[str, np.ndarray], action_dim: int = 0) -> int:
        """The width of observations in what `state` returned."""
        return int(state["rows"].shape[1]) - action_dim - 2

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replaces everything by what `state` returned; a smaller capacity keeps the newest episodes.

        Raises:
            UserError: the state was made with other observation or action widths.
        """
        if state["rows"].shape[1] != self._width:
            raise UserError(
                f"the checkpoint's trajectories have rows of {state['rows'].shape[1]} numbers, this environment's have "
                f"{self._width}: resume with the environment the run was started with"
            )
        self._running, self._ended, self._spare = {}, deque(), []
        self._finished.clear()
        pairs = zip(state["finished_return"].tolist(), state["finished_length"].tolist(), strict=True)
        self._finished.extend(pairs)
        chunks = np.split(state["rows"], np.cumsum(state["length"])[:-1])
        for chunk, episode, first, running in zip(
            chunks, state["episode"].tolist(), state["first"].tolist(), state["running"].tolist(), strict=False
        ):
            part = _Part(episode, first, chunk.astype(np.float32, copy=True), len(chunk))
            self._running[episode] = part
            if not running:
                self._end(part)


def _pack(fragment: Fragment) -> Floats:
    """The kept columns side by side, `[T, N, O + A + 2]`: one array to copy from instead of four."""
    reward, success = fragment.reward[..., None], fragment.success[..., None]
    return np.concatenate([fragment.obs, fragment.action, reward, success], axis=-1, dtype=np.float32)


def _stretches(fragment: Fragment, done: Bools) -> list[tuple[int, int, int]]:
    """Runs of consecutive steps of one episode as (environment, begin, end), in the order of their ends."""
    steps, envs = done.shape
    if steps == 0:
        return []
    follows = (fragment.episode[1:] == fragment.episode[:-1]) & (fragment.step[1:] == fragment.step[:-1] + 1)
    breaks = np.argwhere(~follows | done[:-1])  # rows (step, environment): the stretch ends after this step
    begin = [0] * envs
    found = []
    for step, env in breaks.tolist():
        found.append((env, begin[env], step + 1))
        begin[env] = step + 1
    return found + [(env, begin[env], steps) for env in range(envs)]

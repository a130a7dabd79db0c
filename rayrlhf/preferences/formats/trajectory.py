"""A trajectory as others write it: a dictionary of columns, or a list of such dictionaries, one a step.

{"observations": [[...], ...], "actions": [[...], ...], "rewards": [...], "successes": [...]}
[{"obs": [...], "action": [...], "reward": 0.5}, ...]
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.errors import UserError, shown
from rayrlhf.preferences.fragments import Bools, Floats
from rayrlhf.preferences.segments import Segments

MAX_NUMBERS = 50_000_000
"""In one column of one trajectory: more is no trajectory, and may be a file that wants the memory."""
_NAMES = {
    "obs": ("obs", "observation", "observations"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "success": ("success", "successes"),
}
_WHOLE = {"episode": 1 << 63, "start": 1 << 62}
"""Whole numbers, with what they must be below: a step that is counted from a start still has 63 bits."""
_IGNORED = (
    "next_obs", "next_observation", "next_observations", "done", "dones", "terminal", "terminals", "terminated",
    "truncated", "timestep", "timesteps", "info", "infos",
)  # fmt: skip
_CLOSED = (str, bytes, bool)


@dataclass(frozen=True)
class Trajectory:
    """One side of a pair.

    obs: `[T, O]`   action: `[T, A]`   reward: `[T]`, NaN where nobody knows it   success: `[T]`, false where not said
    episode: its id; none: it follows from what it holds   start: of its first step in the episode
    """

    obs: Floats
    action: Floats
    reward: Floats
    success: Bools
    episode: int | None = None
    start: int = 0

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def size(self) -> int:
        """How many numbers it is, and flags."""
        return sum(getattr(self, name).size for name in _NAMES)

    def last(self, steps: int) -> "Trajectory":
        """Its last `steps` steps."""
        first = len(self) - steps
        columns = {name: getattr(self, name)[first:] for name in _NAMES}
        return replace(self, **columns, episode=self.number(), start=self.start + first)

    def content(self) -> bytes:
        """A hash of what there is to see."""
        widths = np.array([*self.obs.shape, *self.action.shape]).tobytes()
        return hashlib.blake2b(widths + self.obs.tobytes() + self.action.tobytes(), digest_size=8).digest()

    def number(self) -> int:
        """The episode's id: of one that has none 62 bits of its content, so that it is the same in each pair."""
        return int.from_bytes(self.content(), "little") >> 2 if self.episode is None else self.episode


def read_trajectory(value: Any, where: str) -> Trajectory:
    """The trajectory that `value` holds, checked but for ranges of numbers; `where` names it in messages.

    One observation more than there are actions is the one after the last step, and left out.

    Raises:
        UserError: it is none.
    """
    columns = dict(value) if isinstance(value, Mapping) else _by_column(value, where)
    found = {name: _column(columns, names, where) for name, names in _NAMES.items()}
    whole = {name: columns.pop(name) for name in _WHOLE if columns.get(name) is not None}
    if unknown := [name for name in columns if name not in (*_IGNORED, *_WHOLE)]:
        known = ", ".join(names[-1] for names in _NAMES.values())
        raise UserError(f"{where}: unknown key {shown(unknown[0])}; there are {known}, {' and '.join(_WHOLE)}")
    obs, action = (_table(found[name], f"{where}.{name}") for name in ("obs", "action"))
    obs = obs[:-1] if len(obs) == len(action) + 1 else obs
    reward = np.full(len(obs), np.nan, np.float32)
    if found["reward"] is not None:
        reward = _line(found["reward"], f"{where}.reward")
        if np.isnan(reward).any():  # absent as a whole, or there as a whole
            raise UserError(f"{where}.reward holds a value that is no number")
    success = _flags(found["success"], len(obs), f"{where}.success")
    if not 0 < len(obs) == len(action) == len(reward) == len(success):
        lengths = ", ".join(f"{len(c)} {n}" for n, c in zip(_NAMES, (obs, action, reward, success), strict=True))
        raise UserError(f"{where}: its columns differ in length, or are empty: {lengths}")
    numbers = {name: _integer(number, _WHOLE[name], f"{where}.{name}") for name, number in whole.items()}
    return Trajectory(obs, action, reward, success, **numbers)


def written(segments: Segments, i: int, *, plain: bool) -> dict[str, Any]:
    """Segment `i` as a dictionary of columns, of lists if `plain`, else of arrays; without a reward nobody knows."""
    columns: dict[str, Any] = {
        "observations": segments.obs[i],
        "actions": segments.action[i],
        "rewards": segments.reward[i],
        "successes": segments.success[i],
    }
    if not segments.rewarded()[i]:
        del columns["rewards"]
    if plain:
        columns = {name: column.tolist() for name, column in columns.items()}
    return {**columns, "episode": int(segments.episode[i]), "start": int(segments.start[i])}


def _by_column(value: Any, where: str) -> dict[str, Any]:
    """A list of steps as columns."""
    if not isinstance(value, list | tuple) or not all(isinstance(step, Mapping) for step in value):
        raise UserError(f"{where}: wanted a trajectory: an object with observations and actions, or a list of steps")
    if not value:
        raise UserError(f"{where}: the trajectory has no steps")
    names = set(value[0])
    if different := next((i for i, step in enumerate(value) if set(step) != names), None):
        raise UserError(f"{where}, step {different}: its keys are not those of the first step")
    return {name: [step[name] for step in value] for name in value[0] if name not in _IGNORED}


def _column(columns: dict[str, Any], names: Sequence[str], where: str) -> Any:
    """Takes the column out that has one of `names`; none where an optional one is not there."""
    present = [name for name in names if name in columns]
    if len(present) > 1:
        raise UserError(f"{where}: has both {present[0]} and {present[1]}")
    if not present:
        if names in (_NAMES["obs"], _NAMES["action"]):
            raise UserError(f"{where}: has no {names[-1]}")
        return None
    return columns.pop(present[0])


def _table(value: Any, where: str) -> Floats:
    """Numbers `[T, D]`: an array, or a list of rows."""
    if not isinstance(value, list | tuple):
        return _wide(_as_floats(_array(value, where), 2, where), where)
    rows = [row if _is_list(row) else _array(row, where) for row in value]
    widths = {len(row) if _is_list(row) or row.ndim == 1 else -1 for row in rows}
    if len(widths) != 1 or -1 in widths:
        raise UserError(f"{where}: wanted rows of numbers, all of one length")
    (width,) = widths
    if len(rows) * max(width, 1) > MAX_NUMBERS:  # a file may name one row often
        raise UserError(f"{where} has {len(rows):,} x {width:,} numbers, at most {MAX_NUMBERS:,} are read")
    stacked = np.stack([_numbers(row, where) if _is_list(row) else row for row in rows])
    return _wide(_as_floats(stacked, 2, where), where)


def _wide(table: Floats, where: str) -> Floats:
    """Refuses rows of no numbers: they take no bytes, and there may be any number of them."""
    if table.shape[1] == 0:
        raise UserError(f"{where}: its rows hold no numbers")
    return table


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _line(value: Any, where: str) -> Floats:
    """Numbers `[T]`."""
    return _as_floats(_numbers(value, where) if _is_list(value) else _array(value, where), 1, where)


def _flags(value: Any, steps: int, where: str) -> Bools:
    """True and false `[T]`, also as 1 and 0; false where nothing is said."""
    if value is None:
        return np.zeros(steps, np.bool_)
    if _is_list(value):
        value = [int(flag) if isinstance(flag, bool | np.bool_) else flag for flag in value]
    numbers = _line(value, where)
    if not np.isin(numbers, (0.0, 1.0)).all():
        raise UserError(f"{where}: wanted true or false for each step")
    return numbers.astype(np.bool_)


def _numbers(value: Any, where: str) -> NDArray[np.float64]:
    """A list of plain numbers: text and truth values are none, whatever NumPy makes of them."""
    if len(value) > MAX_NUMBERS:
        raise UserError(f"{where} has {len(value):,} numbers, at most {MAX_NUMBERS:,} are read")
    if any(isinstance(x, _CLOSED) or not isinstance(x, int | float | np.integer | np.floating) for x in value):
        raise UserError(f"{where} holds something that is no number")
    try:
        return np.array(value, np.float64)
    except OverflowError as error:
        raise UserError(f"{where} holds a number that is too large") from error


def _array(value: Any, where: str) -> NDArray[Any]:
    """What is an array, or says that it is one (`__array__`)."""
    if isinstance(value, _CLOSED) or not callable(getattr(type(value), "__array__", None)):
        raise UserError(f"{where}: wanted numbers, found {type(value).__name__}")
    array: NDArray[Any] = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.size > MAX_NUMBERS:
        raise UserError(f"{where}: wanted at most {MAX_NUMBERS:,} numbers, found {array.size:,} of {array.dtype}")
    return array


def _as_floats(array: NDArray[Any], rank: int, where: str) -> Floats:
    if array.ndim != rank:
        raise UserError(f"{where} has the shape {list(array.shape)}: wanted {rank} axes")
    with np.errstate(over="ignore"):  # what is infinite is refused where all files are checked
        return np.ascontiguousarray(array, np.float32)


def _integer(value: Any, below: int, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < below:
        raise UserError(f"{where} is {shown(value)}: wanted a whole number, not negative, below {below}")
    return int(value)

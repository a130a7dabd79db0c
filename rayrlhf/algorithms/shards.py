"""A learner's shard in files: row chunks that are written once, and per checkpoint what changes.

Rows are numbered by insertion. A chunk holds the rows `[start, end)` and is never written again, so a checkpoint of a
million rows costs what was inserted since the last one, plus the reward column.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from rayrlhf.algorithms.files import Arrays, read_arrays, write_arrays
from rayrlhf.algorithms.replay import COLUMNS, Replay, Rows

CHUNK = 65_536
"""Rows per chunk: about 22 MB of MetaWorld."""


class ShardEntry(TypedDict):
    """One shard in the manifest: its rows `[first, inserted)`, and the chunk files that hold them in order."""

    index: int
    first: int
    inserted: int
    chunks: list[str]


def save_rows(replay: Replay, rows: Path, index: int) -> ShardEntry:
    """Writes the chunks that `rows` lacks. The last, unfinished one is written anew under a name of its own."""
    first = replay.inserted - replay.size
    names = []
    for chunk in range(first // CHUNK, -(-replay.inserted // CHUNK)):
        begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, replay.inserted)
        existing = rows / _name(index, begin, end)
        if not existing.exists():
            begin = max(begin, first)
            existing = rows / _name(index, begin, end)
            if not existing.exists():
                write_arrays(existing, _read_ring(replay, begin, end))
        names.append(existing.name)
    return ShardEntry(index=index, first=first, inserted=replay.inserted, chunks=names)


def _name(index: int, begin: int, end: int) -> str:
    return f"shard{index:03d}-{begin:012d}-{end:012d}.safetensors"


def _read_ring(replay: Replay, begin: int, end: int) -> Arrays:
    slots = torch.arange(begin, end, device=replay.device) % replay.capacity
    return {name: replay.columns[name].index_select(0, slots).cpu().numpy() for name in COLUMNS}


def reward_column(replay: Replay) -> np.ndarray:
    """The reward of all rows that can be drawn, oldest first, `[size]`."""
    slots = torch.arange(replay.inserted - replay.size, replay.inserted, device=replay.device) % replay.capacity
    return replay.reward.index_select(0, slots).cpu().numpy()


def load_rows(
    replay: Replay, rows: Path, entries: Sequence[ShardEntry], rewards: Sequence[np.ndarray], share: slice
) -> None:
    """Fills an empty `replay` with the rows of `entries` that `share` takes of them all.

    With one entry and everything shared, each row returns to the slot it had.
    """
    if len(entries) == 1 and share == slice(None):
        replay.inserted = entries[0]["first"]
    taken = 0
    for entry, reward in zip(entries, rewards, strict=True):
        for name in entry["chunks"]:
            columns = read_arrays(rows / name)
            begin = int(name.split("-")[1])
            skip = max(0, entry["first"] - begin)
            count = min(len(columns["true_reward"]), entry["inserted"] - begin) - skip
            kept = np.arange(count)[(-taken + (share.start or 0)) % (share.step or 1) :: share.step or 1]
            taken += count
            offset = begin + skip - entry["first"]
            chosen = {key: torch.from_numpy(columns[key][skip : skip + count][kept]) for key in COLUMNS}
            replay.insert(Rows(**chosen), torch.from_numpy(reward[offset : offset + count][kept]))

"""A learner's shard in files: row chunks that are written once, and per checkpoint what changes.

Rows are numbered by insertion. A chunk holds the rows `[begin, end)` and is never written again, so a checkpoint of a
million rows costs what was inserted since the last one, plus the reward column. A replay trusts only chunks that it
wrote or was filled from itself: files of the same rows may be left of a time line that a crash cut off.
"""

import secrets
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from rayrlhf.algorithms.files import Arrays, Digest, Files
from rayrlhf.algorithms.replay import Replay, Rows

CHUNK = 65_536
"""Rows per chunk: about 22 MB of MetaWorld."""


class ChunkEntry(TypedDict):
    """One chunk file of the rows `[begin, end)`."""

    name: str
    begin: int
    end: int
    digest: Digest


class ShardEntry(TypedDict):
    """One shard in the manifest: its rows `[first, inserted)`, and the chunk files that hold them in order."""

    index: int
    first: int
    inserted: int
    chunks: list[ChunkEntry]


def shard_file(index: int) -> str:
    """The name of the file of what a shard's rows do not hold."""
    return f"shard{index:03d}.safetensors"


def save_rows(replay: Replay, rows: Files, index: int) -> ShardEntry:
    """Writes the chunks that this replay has not yet written to `rows`; the last, unfinished one anew."""
    first = replay.inserted - replay.size
    chunks = []
    for chunk in range(first // CHUNK, -(-replay.inserted // CHUNK)):
        begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, replay.inserted)
        known: ChunkEntry | None = replay.saved.get((str(rows.folder), chunk))
        if known is None or known["end"] != end or not rows.has(known["name"]):
            known = _write(replay, rows, index, max(begin, first), end)
            replay.saved[str(rows.folder), chunk] = known
        chunks.append(known)
    return ShardEntry(index=index, first=first, inserted=replay.inserted, chunks=chunks)


def _write(replay: Replay, rows: Files, index: int, begin: int, end: int) -> ChunkEntry:
    name = f"shard{index:03d}-{begin:012d}-{end:012d}-{secrets.token_hex(4)}.safetensors"
    slots = torch.arange(begin, end, device=replay.device) % replay.capacity
    columns: Arrays = {key: replay.columns[key].index_select(0, slots).cpu().numpy() for key in replay.columns}
    return ChunkEntry(name=name, begin=begin, end=end, digest=rows.write(name, columns))


def reward_column(replay: Replay) -> NDArray[np.float32]:
    """The reward of all rows that can be drawn, oldest first, `[size]`, or `[size, P]` where it has parts."""
    slots = torch.arange(replay.inserted - replay.size, replay.inserted, device=replay.device) % replay.capacity
    return replay.reward.index_select(0, slots).cpu().numpy()


def load_rows(
    replay: Replay,
    rows: Files,
    entries: Sequence[ShardEntry],
    rewards: Sequence[NDArray[np.float32]],
    share: slice,
) -> None:
    """Fills an empty `replay` with the rows of `entries` that `share` takes of them all, the newest that fit.

    With one entry, everything shared and the capacity it was saved with, each row returns to the slot it had.
    """
    whole = len(entries) == 1 and share == slice(None)
    entry = entries[0]
    in_place = whole and (entry["first"] == 0 or entry["inserted"] - entry["first"] == replay.capacity)
    if in_place:
        replay.inserted = entry["first"]
    taken = 0
    for entry, reward in zip(entries, rewards, strict=True):
        for chunk in entry["chunks"]:
            columns = rows.read(chunk["name"])
            skip = max(0, entry["first"] - chunk["begin"])
            count = chunk["end"] - chunk["begin"] - skip
            kept = np.arange(count)[(-taken + (share.start or 0)) % (share.step or 1) :: share.step or 1]
            taken += count
            offset = chunk["begin"] + skip - entry["first"]
            there = [key for key in replay.columns if key in columns]  # of returns of one step there are no places
            chosen = {key: torch.from_numpy(columns[key][skip : skip + count][kept]) for key in there}
            _insert(replay, Rows(**chosen), torch.from_numpy(reward[offset : offset + count][kept]))
            if in_place:
                replay.saved[str(rows.folder), chunk["begin"] // CHUNK] = chunk


def _insert(replay: Replay, rows: Rows, reward: torch.Tensor) -> None:
    """Inserts piece by piece: a replay smaller than a chunk keeps the newest rows."""
    for begin in range(0, len(reward), replay.capacity):
        piece = slice(begin, begin + replay.capacity)
        columns = {name: getattr(rows, name) for name in replay.columns}
        there = {name: column[piece] for name, column in columns.items() if column is not None}
        replay.insert(Rows(**there), reward[piece])

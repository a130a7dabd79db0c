"""The answer log: an append-only folder of immutable Parquet files, on any pyarrow filesystem.

    session-00003-part-0000-5a1c09e2f4b7d836.parquet

One file per `append`, named by session, part and the hash of its content. A file is whole or absent; the hash tells a
damaged one. Nothing is ever changed or deleted, so copies and writers that die do no harm. Reading keeps, of each
query, the first wording and, of each annotator, the first answer to it.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.segments import Queries
from rayrlhf.preferences.storage import locate, reason, whole_file
from rayrlhf.preferences.table import Record, Source, check_version, from_table, to_table, unite, write_table

_NAME = re.compile(r"session-(\d{5,})-part-(\d{4,})-([0-9a-f]{16})\.parquet")
Shape = tuple[int, int, int]
"""Segment length `T`, observation width `O`, action width `A`."""


def shape_of(queries: Queries) -> Shape:
    """`(T, O, A)` of the queries' segments."""
    return queries.left.length, queries.left.obs.shape[2], queries.left.action.shape[2]


@dataclass(frozen=True, order=True)
class _Part:
    """One file. The order is the order of reading: first come, first kept."""

    session: int
    number: int
    digest: str
    size: int

    @property
    def name(self) -> str:
        return f"session-{self.session:05d}-part-{self.number:04d}-{self.digest}.parquet"


class PreferenceDataset:
    """Queries and answers in a folder, which need not exist before the first `append`."""

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        self._filesystem, self._folder = locate(where)
        self._shapes: dict[int, Shape] = {}

    def holds(self, path: str | Path) -> bool:
        """Whether a file at `path` would lie in the dataset's folder."""
        filesystem, inside = locate(path)
        folder = self._folder
        if isinstance(filesystem, fs.LocalFileSystem) and isinstance(self._filesystem, fs.LocalFileSystem):
            inside, folder = os.path.realpath(inside), os.path.realpath(folder)
        return filesystem.equals(self._filesystem) and PurePosixPath(inside).is_relative_to(folder)

    def append(self, queries: Queries, answers: Sequence[Answer]) -> None:
        """Stores `queries` with `answers` to some or all of them; both are on the disk when this returns.

        A call that repeats one of the same session (after a crash, say) changes nothing. Answers that come later are
        appended with their queries.

        Raises:
            UserError: the file cannot be written, the session holds segments of another shape, or a query or an answer
                is malformed: what reading would refuse is not written.
            ValueError: an answer is to none of `queries`.
        """
        unknown = {answer.query_id for answer in answers}.difference(queries.ids)
        if unknown:
            raise ValueError(f"answers to queries that are not there: {', '.join(sorted(unknown)[:3])}")
        if not len(queries):
            return
        table = to_table(queries, answers)
        from_table(table, Source(f"not stored in {self.where}", "query", queries.ids))
        parts = [part for part in self._parts() if part.session == queries.session]
        self._check_shape(queries, stored=bool(parts))
        sink = pa.BufferOutputStream()
        write_table(table, sink)
        content = sink.getvalue()
        digest = _digest(content)
        if any(part.digest == digest for part in parts):
            return
        number = 1 + max((part.number for part in parts), default=-1)
        part = _Part(queries.session, number, digest, content.size)
        with whole_file(self._filesystem, self._path(part)) as stream:
            stream.write(content)

    def sessions(self) -> list[int]:
        """The sessions that hold anything, in order."""
        return sorted({part.session for part in self._parts()})

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(part.size for part in self._parts())

    def read_session(self, session: int) -> Record:
        """The queries and answers of one session.

        Raises:
            UserError: there is no such session, or one of its files is damaged, which is then named.
        """
        parts = [part for part in self._parts() if part.session == session]
        if not parts:
            raise UserError(f"{self.where} holds no session {session}; it holds {self.sessions() or 'none'}")
        return self._read(parts)

    def read(self) -> list[Record]:
        """The queries and answers of all sessions, one record per session, in order."""
        parts = self._parts()
        sessions = sorted({part.session for part in parts})
        return [self._read([part for part in parts if part.session == session]) for session in sessions]

    def merge_from(self, other: "PreferenceDataset") -> int:
        """Takes over what `other` holds beyond this dataset; returns the number of new answers."""
        return self.merge(other.read())

    def merge(self, records: Sequence[Record]) -> int:
        """Appends the queries and answers in `records` that are not here yet; returns the number of new answers.

        Where a query's id stands for other segments here (two runs of one name, say), the newcomer's becomes `ID~HASH`.
        A session keeps its number, unless that is taken by one of another shape or typical return (of another run,
        say): then it joins one of its own kind or gets the next free number. All is checked before the first file is
        written; if writing breaks off, the same call may be made again.
        """
        planned, count = self._plan(records)
        for parts in planned.values():
            self.append(*unite(parts))
        return count

    def _plan(self, records: Sequence[Record]) -> tuple[dict[int, list[Record]], int]:
        """What `merge` has to append to which session, and how many answers that are."""
        home: dict[str, int] = {}
        content: dict[str, str] = {}
        answered: set[tuple[str, str]] = set()
        kinds: dict[int, tuple[Shape, float]] = {}
        for queries, answers in self.read():
            home.update(dict.fromkeys(queries.ids, queries.session))
            content.update(zip(queries.ids, queries.contents(), strict=True))
            answered.update((answer.query_id, answer.annotator) for answer in answers)
            kinds[queries.session] = (shape_of(queries), queries.typical_return)
        planned: dict[int, list[Record]] = {}
        count = 0
        for record in records:
            queries, answers = _told_apart(*record, content)
            kind, session = (shape_of(queries), queries.typical_return), queries.session
            if kinds.get(session, kind) != kind:
                session = next((number for number, known in kinds.items() if known == kind), max(kinds) + 1)
            fresh = [answer for answer in answers if (answer.query_id, answer.annotator) not in answered]
            wanted = {answer.query_id for answer in fresh}.union(key for key in queries.ids if key not in home)
            rows: dict[int, list[int]] = {}
            for i, key in enumerate(queries.ids):
                if key in wanted:
                    rows.setdefault(home.setdefault(key, session), []).append(i)
            for target, index in rows.items():
                self._refuse_shape(target, shape_of(queries), kinds.setdefault(target, kind)[0])
                part = replace(queries.take(np.array(index)), session=target)
                keys = set(part.ids)
                planned.setdefault(target, []).append((part, [a for a in fresh if a.query_id in keys]))
            answered.update((answer.query_id, answer.annotator) for answer in fresh)
            count += len(fresh)
        return planned, count

    def _check_shape(self, queries: Queries, *, stored: bool) -> None:
        """Refuses queries of another shape than the session has already, and remembers a new session's."""
        session, shape = queries.session, shape_of(queries)
        if session not in self._shapes and stored:
            self.read_session(session)
        self._refuse_shape(session, shape, self._shapes.setdefault(session, shape))

    def _refuse_shape(self, session: int, shape: Shape, known: Shape) -> None:
        if shape != known:
            raise UserError(
                f"session {session} of {self.where} holds segments of (steps, observations, actions) {known}, not "
                f"{shape}: use another folder"
            )

    def _path(self, part: _Part) -> str:
        return f"{self._folder}/{part.name}"

    def _parts(self) -> list[_Part]:
        """All files in the order of reading."""
        try:
            infos = self._filesystem.get_file_info(fs.FileSelector(self._folder, allow_not_found=True))
        except OSError as error:
            raise UserError(f"cannot list {self.where}: {reason(error)}") from error
        parts = []
        for info in infos:
            match = _NAME.fullmatch(info.base_name)
            if match:
                parts.append(_Part(int(match[1]), int(match[2]), match[3], info.size))
            elif info.extension == "parquet":
                raise UserError(f"{info.path} is not of this dataset: move it away and use `rayrlhf dataset import`")
        return sorted(parts)

    def _read(self, parts: Sequence[_Part]) -> Record:
        """The united content of one session's files."""
        records: list[Record] = []
        for part in parts:
            path = self._path(part)
            table = self._load(path, part.digest)
            found = from_table(table, Source(path, "row", range(1, len(table) + 1)))
            for queries, _ in found:
                shape = self._shapes.setdefault(part.session, shape_of(queries))
                if queries.session != part.session or shape_of(queries) != shape:
                    raise UserError(f"{path} does not belong to session {part.session} of {self.where}: move it away")
            records += found
        return unite(records)

    def _load(self, path: str, digest: str) -> pa.Table:
        try:
            with self._filesystem.open_input_file(path) as file:
                content = file.read_buffer()
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from error
        if _digest(content) != digest:
            raise UserError(f"{path} is damaged: restore it from a copy, or move it away to go on without its answers")
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            check_version(file.schema_arrow, path, required=True)
            return file.read()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from error


def _told_apart(queries: Queries, answers: Sequence[Answer], content: dict[str, str]) -> Record:
    """The record with a new id for each query whose own stands for something else in `content`, which takes it in."""
    ids = {}
    for key, shown in zip(queries.ids, queries.contents(), strict=True):
        ids[key] = key if content.setdefault(key, shown) == shown else f"{key}~{shown}"
        content[ids[key]] = shown
    return replace(queries, ids=tuple(ids.values())), [replace(a, query_id=ids[a.query_id]) for a in answers]


def _digest(content: pa.Buffer) -> str:
    """The hash that names a file."""
    return hashlib.blake2b(memoryview(content), digest_size=8).hexdigest()

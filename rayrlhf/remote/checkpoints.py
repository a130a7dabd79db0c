"""Checkpoints at a URL: laid out as in a run's folder, each with its manifest uploaded last and deleted first."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rayrlhf.algorithms.checkpoint import MANIFEST, ROWS, chunks_of, require_fit
from rayrlhf.algorithms.files import Damaged, Digest, require_digest
from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.remote.objects import Objects

FOLDER = "checkpoints"
"""Of a run's folder."""


def by_age(objects: Objects) -> list[str]:
    """The names of the checkpoints at a run's URL, newest first; half uploaded ones too."""
    return sorted({name.partition("/")[0] for name in objects.sizes(FOLDER) if name.startswith("step-")}, reverse=True)


def newest_whole(objects: Objects) -> str | None:
    """The newest checkpoint that is whole, if there is one."""
    whole = [name.partition("/")[0] for name in objects.sizes(FOLDER) if name.endswith(f"/{MANIFEST}")]
    return max(whole, default=None)


def upload(objects: Objects, place: Path, may_end: Callable[[], None], tell: Callable[[int, int], None]) -> None:
    """Uploads the checkpoint in `place`, unless it is there. No reader takes it for whole before all of it is there.

    `may_end` is called before the manifest is written, and raises where it must not be. `tell` is told how many of how
    many files are there. Raises FileNotFoundError where training has deleted the checkpoint meanwhile.
    """
    name, content = f"{FOLDER}/{place.name}", (place / MANIFEST).read_bytes()
    if objects.read(f"{name}/{MANIFEST}") == content:
        return
    objects.delete(f"{name}/{MANIFEST}")
    manifest = json.loads(content)
    there = objects.sizes(f"{FOLDER}/{ROWS}")
    rows = [chunk for chunk in chunks_of(manifest) if there.get(chunk["name"]) != chunk["digest"]["bytes"]]
    files = [(f"{FOLDER}/{ROWS}/{chunk['name']}", place.parent / ROWS / chunk["name"]) for chunk in rows]
    files += [(f"{name}/{file}", place / file) for file in manifest["files"]]
    for number, (target, source) in enumerate(files):
        tell(number, len(files))
        objects.write(target, source.read_bytes())
    may_end()
    objects.write(f"{name}/{MANIFEST}", content)


def prune(objects: Objects, keep: int, newest: str) -> None:
    """Deletes all but the `keep` newest whole checkpoints, and rows that none of these names.

    Also those after `newest`: the run went back to it.
    """
    there = objects.sizes(FOLDER)
    steps = {name.partition("/")[0] for name in there if name.startswith("step-")}
    whole = [step for step in sorted(steps, reverse=True) if f"{step}/{MANIFEST}" in there and step <= newest]
    kept = whole[:keep]
    for old in steps.difference(kept):
        objects.delete(f"{FOLDER}/{old}/{MANIFEST}")
        objects.delete_folder(f"{FOLDER}/{old}")
    named = set(_rows_named(objects, kept))
    for row in (name.removeprefix(f"{ROWS}/") for name in there if name.startswith(f"{ROWS}/")):
        if row not in named:
            objects.delete(f"{FOLDER}/{ROWS}/{row}")


def _rows_named(objects: Objects, steps: list[str]) -> Iterator[str]:
    for step in steps:
        with suppress(ValueError, KeyError, TypeError):  # damaged: it cannot be gone on from
            manifest = json.loads(objects.read(f"{FOLDER}/{step}/{MANIFEST}") or b"")
            yield from (chunk["name"] for chunk in chunks_of(manifest))


def download_newest(
    objects: Objects, folder: Path, run: RunConfig, say: Callable[[str], None], *, with_replay: bool = True
) -> Path | None:
    """Brings the newest whole checkpoint into a run's `folder`; none where there are none.

    Says where it has to take an earlier one. Raises `UserError` where none is whole, and where the newest does not fit
    `run`.
    """
    steps = by_age(objects)
    for step in steps:
        try:
            return download(objects, step, folder, run, with_replay=with_replay)
        except Damaged as damaged:
            if step == steps[-1]:
                raise UserError(f"{damaged}, and no earlier checkpoint is whole: start another run") from damaged
            say(f"{damaged}; going back to the checkpoint before it")
    return None


def download(objects: Objects, step: str, folder: Path, run: RunConfig, *, with_replay: bool = True) -> Path:
    """Brings one checkpoint into a run's `folder`, without the replay's rows for whoever only acts.

    Raises `Damaged` where it is not whole, and `UserError` where it does not fit `run`.
    """
    where, checkpoints = f"{objects.name}/{FOLDER}/{step}", folder / FOLDER
    content = objects.read(f"{FOLDER}/{step}/{MANIFEST}")
    if content is None:
        raise Damaged(f"{where} has no {MANIFEST}: it was not uploaded to the end")
    manifest = require_fit(_parsed(content, where), where, run)
    for chunk in chunks_of(manifest) if with_replay else ():
        _bring(objects, f"{FOLDER}/{ROWS}/{chunk['name']}", checkpoints / ROWS / chunk["name"], chunk["digest"])
    place = checkpoints / step
    if place.is_dir() and (place / MANIFEST).read_bytes() == content:
        return place
    aside = checkpoints / f".{step}.{secrets.token_hex(4)}.part"
    try:
        for file, digest in manifest["files"].items():
            _bring(objects, f"{FOLDER}/{step}/{file}", aside / file, digest)
        (aside / MANIFEST).write_bytes(content)
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place


def _bring(objects: Objects, name: str, to: Path, digest: Digest) -> None:
    with suppress(Damaged):
        return require_digest(to, digest)  # it is here already
    objects.fetch(name, to)
    try:
        require_digest(to, digest)
    except Damaged as damaged:
        raise Damaged(f"{objects.name}/{name} is missing or damaged: the checkpoint is not whole") from damaged


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise Damaged(f"{where}/{MANIFEST} is damaged ({error})") from error

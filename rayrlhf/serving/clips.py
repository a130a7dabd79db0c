"""Clips over HTTP, whole or in part. Only names that are hashes reach the file system."""

import re
from collections.abc import Collection, Iterator

import pyarrow as pa
from pyarrow import fs
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from rayrlhf.errors import UserError, in_one_line
from rayrlhf.preferences.storage import locate, whole_file
from rayrlhf.preferences.store.records import CLIP_PATTERN, clip_name
from rayrlhf.serving.refusals import log

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CHUNK = 256 * 1024
_FOR_EVER = "private, max-age=31536000, immutable"


class Clips:
    """The MP4 files of `folder`, on any filesystem of pyarrow's. They never change."""

    def __init__(self, folder: str) -> None:
        self._filesystem, self._folder = locate(folder)

    def response(self, name: str, wanted: str | None) -> Response:
        """The clip `name`; with a `Range` header `wanted`, that part of it. 404 and 416 otherwise."""
        path = f"{self._folder}/{name}"
        info = self._look([path])[0] if re.fullmatch(CLIP_PATTERN, name) else None
        if info is None or info.type != fs.FileType.File:
            raise HTTPException(404, "there is no such clip")
        size = int(info.size)
        headers = {"Accept-Ranges": "bytes", "Cache-Control": _FOR_EVER}
        start, stop = 0, size
        if wanted is not None and not wanted.startswith("bytes="):
            wanted = None  # a unit that is not known is passed over (RFC 9110, section 14.2)
        if wanted is not None:
            start, stop = _range(wanted, size)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        headers["Content-Length"] = str(stop - start)
        status = 200 if wanted is None else 206
        return StreamingResponse(self._read(path, start, stop), status, headers, media_type="video/mp4")

    def missing(self, names: Collection[str]) -> set[str]:
        """Those of these clips that are not there. 503 where the folder cannot be reached."""
        listed = sorted(names)
        found = self._look([f"{self._folder}/{name}" for name in listed])
        return {name for name, info in zip(listed, found, strict=True) if info.type != fs.FileType.File}

    def store(self, name: str, content: bytes) -> None:
        """Keeps an MP4 file under the name that its content has; a second time nothing happens.

        422 for anything else, 503 where the folder cannot be written.
        """
        if name != clip_name(content) or content[4:8] != b"ftyp":
            raise HTTPException(422, "wanted an MP4 file under the name that follows from its content")
        try:
            self.keep(content)
        except UserError as error:
            log.error("%s", error)
            raise HTTPException(503, "the clips cannot be stored; try again", {"Retry-After": "5"}) from error

    def keep(self, content: bytes) -> str:
        """Keeps an MP4 file; its name. Raises `UserError` where the folder cannot be written."""
        name = clip_name(content)
        path = f"{self._folder}/{name}"
        try:
            there = self._filesystem.get_file_info(path).type == fs.FileType.File
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"the clips cannot be reached: {in_one_line(error)}") from error
        if not there:
            with whole_file(self._filesystem, path) as stream:
                stream.write(content)
        return name

    def _look(self, paths: list[str]) -> list[fs.FileInfo]:
        try:
            return list(self._filesystem.get_file_info(paths))
        except (OSError, pa.ArrowException) as error:
            raise HTTPException(503, "the clips cannot be reached; try again", {"Retry-After": "1"}) from error

    def _read(self, path: str, start: int, stop: int) -> Iterator[bytes]:
        with self._filesystem.open_input_file(path) as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(_CHUNK, stop - start))):
                start += len(chunk)
                yield chunk


def _range(wanted: str, size: int) -> tuple[int, int]:
    """`[start, stop)` of a range of bytes, of which there is one (RFC 9110, section 14)."""
    found = _RANGE.fullmatch(wanted.strip())
    if found is None or not (found[1] or found[2]):
        raise HTTPException(416, "wanted one range of bytes", {"Content-Range": f"bytes */{size}"})
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
    if start >= stop:
        raise HTTPException(416, "the range lies outside the clip", {"Content-Range": f"bytes */{size}"})
    return start, stop

"""The labelling page: files of the package, the same for everybody, so they want no token. What they show does.

Only the names that were there when the server started lead anywhere; nothing that is asked for reaches the file system.
"""

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

START = "index.html"
FOLDER = "/page/"
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "media-src": "blob:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{what} {whence}" for what, whence in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class File:
    """One file of the page. etag: changes with its content."""

    content: bytes
    media_type: str
    etag: str

    def response(self, known: str | None) -> Response:
        """The file, or 304 for whoever has it already."""
        headers = {**HEADERS, "ETag": self.etag}
        if known is not None and self.etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def is_page(path: str) -> bool:
    """Whether `path` is the page's, which is open to all."""
    return path == "/" or path.startswith(FOLDER)


def page_files() -> dict[str, File]:
    """The page's files by name."""
    folder = files("rayrlhf.serving").joinpath("page")
    return {each.name: _file(each.name, each.read_bytes()) for each in folder.iterdir() if each.is_file()}


def add_page(app: FastAPI) -> None:
    """The page at `/`, what it consists of under `/page/`."""
    found = page_files()

    def show(request: Request, name: str = START) -> Response:
        if name not in found:
            raise HTTPException(404, "there is no such page")
        return found[name].response(request.headers.get("if-none-match"))

    for path in ("/", FOLDER + "{name}"):
        app.add_api_route(path, show, methods=["GET", "HEAD"], include_in_schema=False)


def _file(name: str, content: bytes) -> File:
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
    return File(
        content, kind or "application/octet-stream", f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    )

"""An S3 server of our own, over HTTP, behind a line that can be cut. Wants moto."""

import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyarrow import fs

from rayrlhf.errors import UserError

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_EC2_METADATA_DISABLED": "true"}


class Line:
    """Passes TCP connections on to a port; while it is cut it refuses them, and drops those that there were."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[socket.socket] = set()
        self._listening: socket.socket | None = None
        self.port = 0
        self.mend()

    def mend(self) -> None:
        """Listens, at first and again."""
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def cut(self) -> None:
        """Ends all connections, and takes no new one."""
        assert self._listening is not None
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:  # the server has ended
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        self._open.add(source)
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)


class Storage:
    """A bucket: what is in it, and how a run is told of it."""

    def __init__(self, port: int) -> None:
        self.line = Line(port)
        self.filesystem = fs.S3FileSystem(
            access_key="tests",
            secret_key="tests",
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
            region="us-east-1",
        )

    def url(self, path: str, bucket: str = BUCKET) -> str:
        """As `storage_path` takes it."""
        return f"s3://{bucket}/{path}?endpoint_override=127.0.0.1:{self.line.port}&scheme=http&region=us-east-1"

    def names(self, path: str) -> set[str]:
        """Of the files below a folder, relative to it."""
        selector = fs.FileSelector(f"{BUCKET}/{path}", recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return {info.path.removeprefix(f"{BUCKET}/{path}/") for info in infos if info.type == fs.FileType.File}

    def read(self, path: str) -> bytes:
        """A file's content."""
        with self.filesystem.open_input_stream(f"{BUCKET}/{path}") as stream:
            return bytes(stream.read())

    def write(self, path: str, content: bytes) -> None:
        """A file with `content`."""
        with self.filesystem.open_output_stream(f"{BUCKET}/{path}") as stream:
            stream.write(content)

    def delete(self, path: str) -> None:
        """Deletes a file."""
        self.filesystem.delete_file(f"{BUCKET}/{path}")


@contextmanager
def running() -> Iterator[Storage]:
    """The server with one empty bucket. UserError where moto is missing."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise UserError("an S3 server of our own wants moto: pip install 'moto[server]'") from error
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT"))
        yield Storage(port)
    finally:
        server.stop()

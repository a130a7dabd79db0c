"""Where to listen. Nothing heavy is imported: a taken port is told at once."""

import errno
import ipaddress
import socket
import time

from rayrlhf.errors import UserError

FREE_SECONDS = 4.0


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. Raises `UserError` where it is taken, or `host` is none of this machine.

    What a killed process has left there ends within a second or two: so long is waited.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"the port is {port}, wanted 1 to 65535, or 0 for a free one")
    end = time.monotonic() + FREE_SECONDS
    while True:
        try:
            return _bound(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < end:
                time.sleep(0.2)
                continue
            raise UserError(
                f"cannot listen at {host}:{port} ({error.strerror}): choose another port, or 0 for a free one"
            ) from error


def _bound(host: str, port: int) -> int:
    """The port that a socket gets."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return int(probe.getsockname()[1])


def in_url(host: str) -> str:
    """`host` as it is written in a URL."""
    return f"[{host}]" if ":" in host else host

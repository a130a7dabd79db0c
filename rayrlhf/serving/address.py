"""Where to listen. Nothing heavy is imported: a taken port is told at once."""

import errno
import random
import socket
import time

from rayrlhf.errors import UserError

FREE_SECONDS = 4.0
LASTING = range(20_000, 32_000)
"""Ports that Linux gives to nobody who asks for any."""


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
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE and time.monotonic() < end:
                time.sleep(0.2)
                continue
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot listen at {host}:{port} ({reason}): choose another port, or 0 for a free one"
            ) from error


def lasting_port(host: str) -> int:
    """A port for what ends and listens there again: in between, nobody gets it by chance."""
    while True:
        try:
            return _bound(host, random.choice(LASTING))
        except OSError:
            continue


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


def reachable(host: str) -> str:
    """The name under which others reach this machine, where `host` is all of its addresses."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host

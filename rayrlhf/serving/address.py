"""Where to listen. Nothing heavy is imported: a taken port is told at once."""

import ipaddress
import socket

from rayrlhf.errors import UserError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. Raises `UserError` where it is taken, or `host` is none of this machine."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}, wanted 1 to 65535, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        reason = error.strerror
        raise UserError(
            f"cannot listen at {host}:{port} ({reason}): choose another --port, or 0 for a free one"
        ) from error


def in_url(host: str) -> str:
    """`host` as it is written in a URL."""
    return f"[{host}]" if ":" in host else host

"""The one exception that users see as a sentence instead of a traceback, and what its sentences are made of."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Number


class UserError(Exception):
    """Something the user can mend: the command line prints it as one line and exits with 2."""


class HeldUpError(UserError):
    """Training cannot go on. Nothing is half done: it can from there once that is mended."""


class SessionError(HeldUpError):
    """A session could not be held."""


def in_one_line(error: BaseException) -> str:
    """An exception as one line: its type and the first line of its message."""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__


def printable(text: str, most: int = 80) -> str:
    """Text out of a file as a message may show it: short, on one line, and nothing that a terminal obeys."""
    return text[:most] if text.isprintable() else ascii(text[:most])


def harmless(text: str) -> str:
    """Text with nothing in it that a terminal obeys: what cannot be printed is written out, line breaks are kept."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """A value out of a file as a message may show it. What is no text and no number is told by its type alone: as text
    it may be endless, a list that names itself often, say."""
    return repr(str(value)[:40]) if isinstance(value, str | Number) else type(value).__name__


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as `; did you mean 'drawer-open'?`, or an empty string when nothing is near."""
    close = get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else ""

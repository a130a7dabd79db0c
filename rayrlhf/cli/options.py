"""Reading a verb's own options; a mistake in them is one line, as everywhere."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from rayrlhf.errors import UserError

T = TypeVar("T")
_CHECKED = re.compile(
    r"validation error for \w+ (?:([a-z]\w*) |Value error, )(.*?) \[type=\w+, input_value=(.*), input_type="
)
"""A mistake that a group of options found in itself."""
_FRAME = "│╭╮╰╯─ "


def parse(kind: type[T], args: Sequence[str], verb: str) -> T:
    """The options in `args` as the dataclass `kind`. Prints help and leaves where it is asked for.

    Raises `UserError` for whatever is wrong with `args`.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(args), prog=f"rayrlhf {verb}", config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise UserError(f"{_gist(said.getvalue())}; see rayrlhf {verb} --help") from None


def _gist(boxed: str) -> str:
    """The sentence in tyro's framed message: what stands above the first rule within the frame."""
    words: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip(_FRAME)
        if not text:
            break
        words.append(text)
    said = " ".join(words).removesuffix(" (required)") or "the command line is not understood"
    checked = _CHECKED.search(said)
    if checked is None:
        return said
    where, why, value = checked.groups()
    return why if where is None else f"--{where}: {why}, not {value}"

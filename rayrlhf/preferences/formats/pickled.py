"""Pickles of numbers, read without trusting them.

A pickle is a program: whatever it names is imported and called. Here it may name NumPy's arrays, numbers and types of
numbers, and gets stand-ins of ours for these, which call nothing; anything else is refused. Before that every
instruction is looked at: those that a pickle of plain containers does not need are refused, and so are places in the
memo that nothing fills, and tuples as keys: the hash of one goes through all that is in it, which may be the same part
two to the power of fifty times, or deeper than the interpreter's stack. Bytes that text is turned into are no more than
the file has. What comes out is lists, tuples, dictionaries, text, numbers and `Array`; what was shared is, so it may
be endless as text.
"""

import io
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.errors import UserError, in_one_line, printable, shown

MAX_BYTES = 2 << 30
MAX_INSTRUCTIONS = 50_000_000
_ALLOWED = frozenset(
    """
    PROTO FRAME STOP MARK POP POP_MARK GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE
    INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    """.split()  # noqa: SIM905 - five lines, not fifty
)
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_KEYED = ("DICT", "SETITEM", "SETITEMS")
_CHANGES = ("BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS")
"""Leave what they are applied to, which need not be what they are meant for: a tuple to which nothing is appended."""
_NUMBERS = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|float(16|32|64)|u?int(8|16|32|64)|bool)")


class Refused(Exception):  # noqa: N818 - reads as what it says
    """Something in a pickle that is not read."""


class _Type:
    """Stands in for `numpy.dtype` and what it makes: a type of numbers, nothing else."""

    __slots__ = ("of",)

    def __init__(self, name: object) -> None:
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            raise Refused(f"an array of {shown(name)}, and not of numbers")
        self.of = np.dtype(name)

    def __setstate__(self, state: object) -> None:
        plain = isinstance(state, tuple) and len(state) == 8 and state[2:5] == (None, None, None)
        if not plain or state[1] not in ("<", ">", "=", "|"):  # type: ignore[index]
            raise Refused("a type of numbers with parts")
        self.of = self.of.newbyteorder(state[1])  # type: ignore[index]


class Array:
    """An array that a pickle held; NumPy takes it for one."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Type):
            raise Refused("an array that is not whole")
        self._value = _filled(state[4], state[2], state[1], fortran=bool(state[3]))

    @classmethod
    def of(cls, value: NDArray[Any]) -> "Array":
        """A whole one."""
        made = cls()
        made._value = value
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if self._value is None:
            raise UserError("the pickle holds an array that is not whole")
        return np.asarray(self._value, dtype)


def _filled(content: object, kind: _Type, shape: object, *, fortran: bool) -> NDArray[Any]:
    if not isinstance(content, bytes | bytearray) or not isinstance(shape, tuple) or len(shape) > 4:
        raise Refused("an array without its numbers")
    sizes = all(type(size) is int and 0 <= size < 1 << 31 for size in shape)
    if not sizes or 0 in shape[1:] or math.prod(shape) * kind.of.itemsize != len(content):
        raise Refused("an array of a shape that its numbers do not have")
    return np.frombuffer(content, kind.of).reshape(shape, order="F" if fortran else "C")


class _Call:
    """What a pickle gets for a name; it has no attributes to set, and is no class to make instances of."""

    __slots__ = ("_left", "_name")

    def __init__(self, name: str, left: list[int]) -> None:
        self._name, self._left = name, left

    def __setstate__(self, state: object) -> None:
        raise Refused(f"a change of {self._name}")

    def __call__(self, *args: object) -> object:
        match self._name, args:
            case "dtype", (name, *rest) if all(type(flag) in (bool, int) for flag in rest):
                return _Type(name)
            case "_reconstruct", (_Call(), tuple(), bytes()):
                return Array()
            case "_frombuffer", (content, _Type() as kind, shape, order):
                return Array.of(_filled(content, kind, shape, fortran=order == "F"))
            case "scalar", (_Type() as kind, content):
                return _filled(content, kind, (1,), fortran=False)[0]
            case "encode", (str() as text, "latin1" | "latin-1"):
                return self._encoded(text)
        raise Refused(f"a call of {self._name} that makes no array")

    def _encoded(self, text: str) -> bytes:
        """How protocols below 3 hold bytes: each text once, so that all together are no longer than the file."""
        self._left[0] -= len(text)
        if self._left[0] < 0:
            raise Refused("one text as bytes, many times")
        return text.encode("latin1")


_NAMES = {
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): "encode",
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._left = [len(content)]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise Refused(printable(f"{module}.{name}"))
        return _Call(_NAMES[module, name], self._left)


def loads(content: bytes, name: str) -> Any:
    """What the pickle `content` of the file `name` holds.

    Raises:
        UserError: it is damaged, or holds anything but plain containers, numbers, text and arrays of numbers.
    """
    if len(content) > MAX_BYTES:
        raise UserError(f"{name} has {len(content):,} bytes, at most {MAX_BYTES:,} are read: split it")
    try:
        _look_through(content)
        return _Reader(content).load()
    except Refused as refused:
        raise UserError(f"{name} is refused: it holds {refused}; wanted plain containers and NumPy arrays") from refused
    except UserError:
        raise
    except Exception as error:  # whatever a damaged pickle makes the interpreter raise
        raise UserError(f"{name} is no whole pickle: {printable(in_one_line(error))}") from error


def _look_through(content: bytes) -> None:
    """Refuses instructions that are not needed, memo places out of turn, and tuples as keys."""
    stack: list[bool | None] = []  # whether each item is a tuple; none: a mark
    memo: dict[int, bool] = {}
    for count, (code, argument, _) in enumerate(pickletools.genops(content)):
        if code.name not in _ALLOWED:
            raise Refused(f"the instruction {code.name}")
        if count >= MAX_INSTRUCTIONS:
            raise Refused(f"more than {MAX_INSTRUCTIONS:,} instructions")
        if code.name in _PUTS or code.name == "MEMOIZE":
            place = len(memo) if code.name == "MEMOIZE" else argument
            if not isinstance(place, int) or not 0 <= place <= 2 * len(memo) + 256:
                raise Refused("a memo that is not filled in turn")
            memo[place] = stack[-1] or False
        elif code.name in _GETS:
            stack.append(memo[int(argument or 0)])
        else:
            _step(stack, code)


def _step(stack: list[bool | None], code: pickletools.OpcodeInfo) -> None:
    """What an instruction takes from the stack and leaves there."""
    before = [kind.name for kind in code.stack_before]
    if "mark" in before:
        mark = len(stack) - 1 - stack[::-1].index(None)
        first = mark - before.index("mark")
    else:
        first = len(stack) - len(before)
    if first < 0:
        raise Refused("instructions without operands")
    items = [item for item in stack[first:] if item is not None]
    if code.name in _KEYED and any(items[code.name != "DICT" :: 2]):
        raise Refused("a dictionary with a tuple as its key")
    is_tuple = items[0] if code.name in _CHANGES else "TUPLE" in code.name
    del stack[first:]
    stack.extend(None if kind.name == "mark" else is_tuple for kind in code.stack_after)

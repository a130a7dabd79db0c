"""A pickle is a program. These are attacks; each would do something if it were run, and none is."""

import builtins
import functools
import json
import operator
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.formats.files import import_any
from rayrlhf.preferences.formats.pickled import Array, loads


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.parts = function, args

    def __reduce__(self) -> Any:
        return self.parts


def named(module: str, name: str) -> bytes:
    """Instructions that push what `module` calls `name`, dots and all."""
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


def called(module: str, name: str, arguments: bytes) -> bytes:
    """A pickle that calls it."""
    return b"\x80\x04" + named(module, name) + arguments + b"R."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def attacks(marker: Path) -> dict[str, bytes]:
    shell = f"touch {marker}"
    run = text(shell) + b"\x85"
    array = np.arange(3.0)
    dtype = b"\x80\x04" + named("numpy", "dtype")
    return {
        "os.system": pickle.dumps(Calls(os.system, shell)),
        "os.system, protocol 0": pickle.dumps(Calls(os.system, shell), protocol=0),
        "in a list of arrays": pickle.dumps([array, Calls(os.system, shell)]),
        "subprocess": pickle.dumps(Calls(subprocess.getoutput, shell)),
        "eval": pickle.dumps(Calls(builtins.eval, f"__import__('os').system({shell!r})")),
        "exec": pickle.dumps(Calls(builtins.exec, f"import os; os.system({shell!r})")),
        "getattr": pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")),
        "partial": pickle.dumps(Calls(functools.partial, os.system, shell)),
        "attrgetter": pickle.dumps(Calls(operator.attrgetter, "system")),
        "copyreg._reconstructor": called("copyreg", "_reconstructor", named("os", "_wrap_close") + b"N\x85"),
        "dots from numpy": called("numpy", "core.multiarray.__loader__", run),
        "dots to os": called("numpy", "f2py.os.system", run),
        "dots from a module": called("numpy.core.multiarray", "os.system", run),
        "dots from dtype": called("numpy", "dtype.__class__", run),
        "numpy.load": called("numpy", "load", text("/etc/passwd") + b"\x85"),
        "numpy's own eval": called("numpy.testing._private.utils", "runstring", run),
        "numpy.core, another name": called("numpy.core.multiarray", "fromfile", text("/etc/passwd") + b"\x85"),
        "INST": b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + shell.encode() + b"'\no.",
        "NEWOBJ": b"\x80\x04" + named("numpy", "ndarray") + b"K\x05\x85\x85\x81.",
        "EXT1": b"\x80\x04\x82\x01.",
        "PERSID": b"Pos.system\n.",
        "REDUCE on a list": b"\x80\x04]" + run + b"R.",
        "objects in an array": pickle.dumps(np.array([Calls(os.system, shell)], object)),
        "a type of objects": dtype + text("O8") + b"\x85R.",
        "a record type": pickle.dumps(np.zeros(2, [("a", "f4")])),
        "BUILD on dtype": dtype + b"}" + text("type") + text("x") + b"sb.",
        "BUILD on dtype, slots": dtype + b"N}" + text("__class__") + text("x") + b"s\x86b.",
        "BUILD on reconstruct": b"\x80\x04" + named("numpy.core.multiarray", "_reconstruct") + b"}"
        + text("__defaults__") + b")sb.",
        "BUILD on an array": pickle.dumps(array)[:-1] + b"}" + text("dtype") + text("O") + b"sb.",
        "BUILD on a list": b"\x80\x04]}" + text("__class__") + text("x") + b"sb.",
        "BUILD on a string": b"\x80\x04" + text("x") + b"N}" + text("a") + text("x") + b"s\x86b.",
        "an array of too few bytes": pickle.dumps(array).replace(b"K\x03\x85", b"K\x04\x85"),
        "an array of a huge shape": pickle.dumps(array).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
        "reconstruct a huge array": b"\x80\x04" + named("numpy.core.multiarray", "_reconstruct")
        + b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86\x85R.",
        "a codec": called("_codecs", "encode", text("x") + text("unicode_escape") + b"\x86"),
        "a codec without a name": called("_codecs", "encode", text("x") + b"\x85"),
        "a memo of 32 GB": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "a memo of 32 GB, in text": b"Np2147483647\n.",
        "tuples in tuples as a key": b"\x80\x04})" + b"\x85" * 1_000_000 + b"Ns.",
        "one tuple in a tuple twice, forty times, as a key": b"\x80\x04})" + b"\x942\x86" * 40 + b"Ns.",
        "the same, set with others": b"\x80\x04}()" + b"\x942\x86" * 40 + b"Nu.",
        "the same in a dictionary of text": b"()" + b"\x942\x86" * 40 + b"Nd.",
        "the same, built on": b"\x80\x04})" + b"\x942\x86Nb" * 40 + b"Ns.",
        "the same, with nothing appended": b"\x80\x04})" + b"\x942\x86(e" * 40 + b"Ns.",
        "one text as bytes, many times": b"\x80\x04" + text("x" * (1 << 20)) + b"\x94" + text("latin1") + b"\x94]("
        + (named("_codecs", "encode") + b"h\x00h\x01\x86R") * 1000 + b"e.",
        "rows without numbers": pickle.dumps(np.zeros((1 << 27, 0))),
        "a set": pickle.dumps({1, 2}),
        "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        "bytearray that is not there": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
        "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
        "an empty stack": b"\x80\x04t.",
        "no operands": b"\x80\x04\x86.",
        "a memo that nobody filled": b"\x80\x04h\x05.",
        "nothing": b"",
        "text": b"hello",
    }  # fmt: skip


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.mark.parametrize("name", attacks(Path("/nowhere")))
def test_nothing_runs_and_the_line_is_one(name: str, marker: Path) -> None:
    content = attacks(marker)[name]
    with pytest.raises(UserError) as raised:
        loads(content, "some.pickle")
    assert not marker.exists()
    assert str(raised.value).startswith("some.pickle is ") and "\n" not in str(raised.value)


LIMITED = """
import json, resource, sys
from pathlib import Path
from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.formats.files import import_any

here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (here + int(sys.argv[2]),) * 2)
said = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        import_any(PreferenceDataset(path.parent / "made"), path)
        said[path.name] = "read"
    except UserError as error:
        said[path.name] = str(error)
print(json.dumps(said))
"""


def said_in_little_memory(folder: Path, megabytes: int = 300) -> dict[str, str]:
    """What imports of the files in `folder` say, in a process that may take so much more memory than it has."""
    command = [sys.executable, "-c", LIMITED, str(folder), str(megabytes << 20)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    said: dict[str, str] = json.loads(ended.stdout)
    return said


def test_no_attack_takes_memory_or_time(marker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "attacks"
    folder.mkdir()
    for name, content in attacks(marker).items():
        (folder / f"{name.replace(',', '').replace(' ', '-')}.pickle").write_bytes(content)
    for name, said in said_in_little_memory(folder).items():
        assert "MemoryError" not in said and said != "read", f"{name}: {said}"


def test_the_payloads_are_real(marker: Path) -> None:
    """Python's own reader runs them: this is what is kept from happening."""
    for name in ("os.system", "os.system, protocol 0", "in a list of arrays", "subprocess", "eval", "INST", "OBJ"):
        pickle.loads(attacks(marker)[name])
        assert marker.exists(), name
        marker.unlink()
    assert pickle.loads(b"\x80\x04" + named("pickle", "sys.exit") + b".") is sys.exit, "dots lead anywhere"


def test_deep_tuples_end_python_itself() -> None:
    program = "import pickle; pickle.loads(b'\\x80\\x04})' + b'\\x85' * 5_000_000 + b'Ns.')"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode != 0


def test_stand_ins_are_as_before_after_an_attack(marker: Path) -> None:
    for content in attacks(marker).values():
        with pytest.raises(UserError):
            loads(content, "x")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(np.asarray(loads(pickle.dumps(array), "x")), array)


def test_one_row_named_often_is_no_bomb(tmp_path: Path) -> None:
    """Megabytes of references to one list would be a table of many gigabytes."""
    row = [0.0] * 20_000
    side = {"obs": [row] * 20_000, "action": [[0.0]] * 20_000}
    folder = tmp_path / "bombs"
    folder.mkdir()
    (folder / "bomb.pickle").write_bytes(pickle.dumps([("", side, side)]))
    assert (folder / "bomb.pickle").stat().st_size < 1 << 20
    said = said_in_little_memory(folder)["bomb.pickle"]
    assert "20,000 x 20,000 numbers, at most 50,000,000 are read" in said


def doubled(times: int) -> Any:
    """As text two to the power of `times` letters; in a pickle each list is there once."""
    found: Any = ["x"]
    for _ in range(times):
        found = [found, found]
    return found


def test_what_would_be_endless_as_text_is_told_by_its_type(tmp_path: Path) -> None:
    side = {"obs": [[0.0]], "action": [[0.0]]}
    folder = tmp_path / "laughs"
    folder.mkdir()
    wanted = {}
    for name, laugh in (("list", doubled(40)), ("dict", {"a": doubled(40)})):
        pairs = {
            "label": (("", side, side, laugh), f"the label is {name}"),
            "episode": (("", {**side, "episode": laugh}, side), f"trajectory_a.episode is {name}"),
            "instruction": ((laugh, side, side), f"the instruction is no text but {name}"),
        }
        for place, (pair, message) in pairs.items():
            (folder / f"{place}-{name}.pickle").write_bytes(pickle.dumps([pair]))
            wanted[f"{place}-{name}.pickle"] = message
    for name, said in said_in_little_memory(folder).items():
        assert wanted[name] in said
    kind = b"\x80\x04" + named("numpy", "dtype") + b")" + b"\x85" * 100_000 + b"\x85R."
    with pytest.raises(UserError, match="an array of tuple, and not of numbers"):
        loads(kind, "x")


def test_rows_without_numbers_are_refused(tmp_path: Path) -> None:
    """They take no bytes, so there may be any number of them."""
    for obs in ([[]] * 1000, np.zeros((0, 0)), [np.zeros(0, np.float32)] * 1000):
        path = tmp_path / "x.pickle"
        path.write_bytes(pickle.dumps([("", {"obs": obs, "action": [[0.0]] * 1000}, {})]))
        with pytest.raises(UserError, match=r"trajectory_a\.obs: its rows hold no numbers|is refused"):
            import_any(PreferenceDataset(tmp_path / "made"), path)


def test_references_to_one_trajectory_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayrlhf.preferences.formats.entries.MAX_NUMBERS", 1000)
    side = {"obs": np.zeros((10, 2), np.float32), "action": np.zeros((10, 1), np.float32)}
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps([("", side, side)] * 10))
    assert import_any(PreferenceDataset(tmp_path / "made"), path)[0] == 10
    path.write_bytes(pickle.dumps([("", side, side)] * 11))
    with pytest.raises(UserError, match="1,000,000 pairs or 1,000 numbers: split it"):
        import_any(PreferenceDataset(tmp_path / "other"), path)


def test_a_list_that_holds_itself_is_one_line(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    for content in (endless, [("", endless, endless)], [("", {"obs": endless, "action": endless}, {})]):
        path = tmp_path / "x.pickle"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"x\.pickle"):
            import_any(PreferenceDataset(tmp_path / "made"), path)


def test_an_array_that_is_not_whole_is_one_line(tmp_path: Path) -> None:
    begun = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
    found = loads(b"\x80\x04" + begun + b".", "x")
    assert isinstance(found, Array)
    with pytest.raises(UserError, match="an array that is not whole"):
        np.asarray(found)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_wanted_is_read(protocol: int) -> None:
    """Arrays of all layouts, numbers, text and containers, by each protocol, shared ones too."""
    shared = np.arange(12, dtype=np.int16).reshape(3, 4)
    content = {
        "shared": [shared, shared],
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "sliced": np.arange(20, dtype=">f8")[::3],
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3) if protocol > 2 else (1, 3), np.float32),  # no bytes are a call of theirs below that
        "scalar": np.float32(0.1),
        "plain": (1, -(2**40), 0.25, "öffne", None, True, [], {}, ()),
    }
    found = loads(pickle.dumps(content, protocol=protocol), "x")
    assert found["plain"] == content["plain"] and found["scalar"] == content["scalar"]
    for name in ("fortran", "sliced", "flags", "empty"):
        expected: Any = content[name]
        np.testing.assert_array_equal(np.asarray(found[name]), expected)
        assert np.asarray(found[name]).dtype == expected.dtype
    for array in found["shared"]:
        np.testing.assert_array_equal(np.asarray(array), shared)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_changed_bytes_are_read_or_refused(protocol: int) -> None:
    """Whatever becomes of a pickle, the interpreter lives and a refusal is one line."""
    side = {"obs": np.arange(6, dtype=np.float32).reshape(3, 2), "action": np.zeros((3, 1)), "reward": [np.float32(1)]}
    whole, rng = (
        pickle.dumps([("open", side, side, 1, {"annotator": "eva"})], protocol=protocol),
        np.random.default_rng(0),
    )
    refused = 0
    for _ in range(3000):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 5)):
            content[place] = rng.integers(256)
        try:
            loads(bytes(content), "x")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 1000

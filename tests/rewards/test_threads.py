"""What must be so before several members are computed at the same time."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

NOTE = "mkl_vml_serv_cpu_detect.vml_cpu_type"
"""Where MKL's vector library notes what processor this is; -1 before its first use."""
PROGRAM = """
import ctypes, sys
from rayrlhf.rewards.threads import Threads
start = min(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "libtorch_cpu.so" in line)
note = ctypes.c_int.from_address(start + int(sys.argv[1], 16))
print(note.value)
Threads(3)
print(note.value)
"""


def test_vector_math_knows_the_processor_before_threads_use_it() -> None:
    """While it finds out, another thread computes a `tanh` by the wrong routine: a fit in about 200 came out otherwise.

    That fit on an AVX-512 machine, one `tanh` of one member with half of the digits, left some weights one unit in the
    last place off.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists() or shutil.which("nm") is None:
        pytest.skip("needs nm and torch's Linux library")
    symbols = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True).stdout
    places = [line.split()[0] for line in symbols.splitlines() if line.endswith(f" {NOTE}")]
    if not places:
        pytest.skip("this torch computes without MKL, or names nothing")
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *places], capture_output=True, text=True, check=True)
    before, after = (int(line) for line in ran.stdout.split())
    assert before == -1
    assert after >= 0

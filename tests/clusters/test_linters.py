"""The scripts and the Dockerfile under `clusters/`, by the linters of their kind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("clusters/**/*.sh"), *ROOT.glob("clusters/**/*.sbatch")])
DOCKERFILE = ROOT / "clusters" / "Dockerfile"
PROGRAMS = Path(sys.executable).parent


def said(*command: str | Path) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script(script: Path) -> None:
    assert said("bash", "-n", script) == ""
    assert said(PROGRAMS / "shellcheck", script) == ""


def test_all_scripts_are_found() -> None:
    assert {script.name for script in SCRIPTS} == {"local.sh", "train.sbatch", "many.sbatch"}


@pytest.mark.skipif(sys.platform != "linux", reason="hadolint comes for Linux")
def test_the_dockerfile() -> None:
    assert said(PROGRAMS / "hadolint", DOCKERFILE) == ""


def test_the_image() -> None:
    """The pinned Ray, no root, nothing that is not there or that the builder does not get."""
    text = DOCKERFILE.read_text()
    pinned = re.search(r"ray\[.*\]==([\d.]+)\.\*", (ROOT / "pyproject.toml").read_text())
    base = re.search(r"^ARG BASE=rayproject/ray:([\d.]+)-py3\d+$", text, re.MULTILINE)
    assert pinned and base and base[1].startswith(pinned[1])
    assert re.findall(r"^USER (\d+)$", text, re.MULTILINE)[-1] != "0"
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for words in re.findall(r"^COPY --\S+ (.*) \S+$", text, re.MULTILINE) for name in words.split()}
    assert copied == sent and all((ROOT / name).exists() for name in copied)

"""Teachers that installed packages offer, by the name that these give them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from questions import answers, asked
from support import SMALL

from rayrlhf.config import TeacherOptions
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.teachers import make_teacher
from rayrlhf.teachers.make import check_teacher

MODULE = """
from rayrlhf.teachers import ImmediateTeacher

class Polite(ImmediateTeacher):
    def __init__(self, options, seed):
        super().__init__("polite")

    def choose(self, queries):
        return ["equal"] * len(queries)

class Blind:
    pass
"""


ONE_STEP = np.array([[0.0]]), np.array([[1.0]])


def install(package: str, offers: str, into: Path) -> None:
    """Has pip install a distribution whose entry points are the lines `offers`."""
    info = f"{package}-1.0.dist-info"
    files = {
        f"{package}.py": MODULE,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[rayrlhf.teachers]\n{offers}\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    wheel = into.parent / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, text)
    options = [
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--disable-pip-version-check",
        "--target",
        str(into),
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages with one that offers two teachers."""
    folder = tmp_path / "site"
    install("polite_teachers", "polite = polite_teachers:Polite\nblind = polite_teachers:Blind", folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def complaint(name: str) -> str:
    with pytest.raises(UserError) as caught:
        check_teacher(TeacherOptions(name=name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_installed_teacher_is_found_by_its_name(site: Path) -> None:
    assert answers(asked(*ONE_STEP), name="polite") == ["equal"]


def test_an_unknown_name_lists_what_is_installed_and_the_nearest(site: Path) -> None:
    assert complaint("polit") == (
        "teacher.name is 'polit', wanted one of oracle, mistake, noisy, skip, myopic, equal, mixture, random, silent, "
        "human, an installed one (blind, polite), or 'package.module:Class'; did you mean 'polite'?"
    )


def test_an_installed_class_that_is_no_teacher_is_told_by_its_name(site: Path) -> None:
    assert complaint("blind") == "teacher.name 'blind' is no teacher: it has no ask and no collect"


def test_an_entry_point_that_leads_nowhere_is_named_with_its_path(site: Path) -> None:
    install("lost_teachers", "lost = no_such_module_here:Teacher", site)
    assert "'lost', installed as 'no_such_module_here:Teacher' cannot be imported" in complaint("lost")


def test_a_name_that_two_packages_give_is_not_guessed(site: Path) -> None:
    install("rude_teachers", "polite = rude_teachers:Polite", site)
    assert "call something 'polite' in rayrlhf.teachers: polite_teachers:Polite and rude_teachers:Polite" in complaint(
        "polite"
    )
    assert make_teacher(TeacherOptions(name="rude_teachers:Polite"), 0)


def test_our_own_names_come_first(site: Path) -> None:
    install("false_oracles", "oracle = false_oracles:Polite", site)
    assert answers(asked(*ONE_STEP), name="oracle") == ["right"]


def test_a_run_is_taught_by_an_installed_teacher(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line, in a process that finds the package as any other."""
    monkeypatch.setenv("PYTHONPATH", f"{site}:{Path(__file__).parents[2]}")
    words = ["--teacher", "polite", "--name", "taught", "--storage_path", str(tmp_path), "--rollout.actors", "0"]
    words += [word for word in SMALL if not word.startswith("--rollout.actors")]
    command = [sys.executable, "-m", "rayrlhf", "train", "toy", *words, "--evaluation.final_episodes=1", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    said = [one for _, found in PreferenceDataset(str(tmp_path / "taught/preferences")).read() for one in found]
    assert {(one.annotator, one.choice) for one in said} == {("polite", "equal")} and len(said) == 12


def test_a_config_that_names_a_plug_in_is_read_where_it_is_not_installed() -> None:
    assert load_config("toy", ["teacher=from_elsewhere"]).teacher.title == "from_elsewhere"

"""Imports go only downwards. The rooms and their layers are ARCHITECTURE.md's."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import rayrlhf

PACKAGE = Path(rayrlhf.__file__).parent

LAYERS = (
    {"config", "cores", "seeding", "errors", "files", "placement", "logs"},
    {"preferences", "envs"},
    {"policies", "rewards", "queries", "teachers", "exploration", "language", "evaluation"},
    {"algorithms", "fitting"},
    {
        "actors",
        "cluster",
        "generating",
        "training",
        "tuning",
        "evaluating",
        "aligning",
        "trained",
        "tracking",
        "remote",
        "plotting",
        "jobs",
    },
    {"serving"},
    {"cli", "bench", "__main__"},
)
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}

SIDEWAYS = {
    ("config", "errors"),
    ("placement", "config"),
    ("config", "files"),
    ("files", "errors"),
    ("envs", "preferences"),
    ("evaluation", "policies"),
    ("policies", "rewards"),
    ("evaluation", "rewards"),
    ("exploration", "rewards"),
    ("training", "actors"),
    ("training", "cluster"),
    ("generating", "cluster"),
    ("training", "tracking"),
    ("tuning", "training"),
    ("tuning", "cluster"),
    ("tuning", "tracking"),
    ("training", "remote"),
    ("training", "trained"),
    ("remote", "tracking"),
    ("evaluating", "tracking"),
    ("evaluating", "trained"),
    ("aligning", "trained"),
    ("trained", "tracking"),
    ("plotting", "tracking"),
    ("cli", "bench"),
    ("__main__", "cli"),
}
"""Imports within one layer, each from the first room to the second; never both ways."""

LOWEST = {"torch": 2, "ray": 3, "fastapi": 5, "sqlalchemy": 1, "pyarrow": 1, "gymnasium": 1, "mujoco": 1}
"""The lowest layer that may import a package of others."""

OPTIONAL = {
    "mujoco.viewer",
    "moto",
    "wandb",
    "tensorboardX",
    "av",
    "envpool",
    "shimmy",
    "sentence_transformers",
    "transformers",
    "dm_control",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "psycopg",
}
"""May be imported inside functions: extras, what needs a display, and trackers that can be switched off."""


@dataclass(frozen=True)
class Import:
    """One import statement's target, dotted, and where it stands."""

    room: str
    where: str
    target: str
    in_function: bool


def imports() -> list[Import]:
    return [found for file in sorted(PACKAGE.rglob("*.py")) for found in _of_file(file)]


def _of_file(file: Path) -> Iterator[Import]:
    relative = file.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        for target in _targets(node):
            yield Import(room, f"{relative}:{getattr(node, 'lineno', 0)}", target, node in inside)


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they lead"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


ALL = imports()
OURS = [found for found in ALL if found.target.startswith("rayrlhf.")]


def room_of(target: str) -> str:
    return target.split(".")[1]


def is_within(target: str, package: str) -> bool:
    return target == package or target.startswith(f"{package}.")


def test_every_room_has_a_layer() -> None:
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__", "presets", "py.typed"} <= LAYER.keys()


def is_allowed(importer: str, room: str) -> bool:
    return importer == room or LAYER[room] < LAYER[importer] or (importer, room) in SIDEWAYS


def test_imports_go_only_downwards() -> None:
    crossing = [found for found in OURS if found.room in LAYER and room_of(found.target) in LAYER]
    assert len(crossing) > 100, "the walk finds the imports"
    wrong = [f for f in crossing if not is_allowed(f.room, room_of(f.target))]
    assert not wrong, "\n".join(f"{found.where} imports {found.target}" for found in wrong)


def test_the_list_of_sideways_imports_is_true() -> None:
    used = {(found.room, room_of(found.target)) for found in OURS}
    assert used >= SIDEWAYS, f"no longer needed: {SIDEWAYS - used}"
    assert all(LAYER[first] == LAYER[second] for first, second in SIDEWAYS)
    assert not {(second, first) for first, second in SIDEWAYS} & used


@pytest.mark.parametrize(("package", "lowest"), LOWEST.items())
def test_heavy_packages_stay_above_their_layer(package: str, lowest: int) -> None:
    wrong = [f for f in ALL if is_within(f.target, package) and LAYER.get(f.room, 0) < lowest]
    assert not wrong, "\n".join(f"{found.where} imports {found.target}" for found in wrong)


def test_only_algorithms_know_rllib() -> None:
    wrong = [f.where for f in ALL if is_within(f.target, "ray.rllib") and f.room not in ("algorithms", "bench")]
    assert not wrong


def test_imports_stand_at_the_head_of_files() -> None:
    """Except optional extras, and in the verbs, which show help and mistakes before they load Ray."""
    inside = [found for found in ALL if found.in_function and found.room != "cli"]
    wrong = [f for f in inside if not any(is_within(f.target, optional) for optional in OPTIONAL)]
    assert not wrong, "\n".join(f"{found.where} imports {found.target}" for found in wrong)


def test_private_names_stay_in_their_room() -> None:
    abroad = [found for found in OURS if room_of(found.target) != found.room]
    wrong = [f for f in abroad if any(re.match("_(?!_)", part) for part in f.target.split("."))]
    assert not wrong, "\n".join(f"{found.where} imports {found.target}" for found in wrong)

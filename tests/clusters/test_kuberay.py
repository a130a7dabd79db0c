"""The files in `clusters/kuberay/`."""

import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from kuberay import SCHEMAS, closed

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "clusters" / "kuberay").glob("*.yaml"))
DEFINITIONS = os.environ.get("KUBERAY_CRDS")
"""A folder with the operator's ray.io_*.yaml, for the whole check."""


def named(file: Path) -> str:
    return file.stem


def read(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def cluster_of(tree: dict[str, Any]) -> dict[str, Any]:
    spec = tree["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


def pods(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(tree)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def paths(tree: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where objects are in `tree`."""
    if isinstance(tree, dict):
        yield before
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from paths(value, (*before, key))


def test_all_three_are_there() -> None:
    assert [file.stem for file in FILES] == ["raycluster", "rayjob", "rayservice"]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_file_is_what_the_operator_takes(file: Path) -> None:
    tree = read(file)
    jsonschema.validate(tree, SCHEMAS[tree["kind"]])


@pytest.mark.parametrize("file", FILES, ids=named)
def test_an_unknown_key_is_refused_wherever_the_operator_knows_all(file: Path) -> None:
    free = {"requests", "limits", "nodeSelector", "rayStartParams"}  # names of the user's own
    for path in paths(read(file)):
        if free & set(path) or (path and path[-1] == "resources" and path[-3:-1] != ("containers", 0)):
            continue
        tree = copy.deepcopy(read(file))
        place = tree
        for key in path:
            place = place[key]
        place["mispelt"] = {}
        with pytest.raises(jsonschema.ValidationError, match="mispelt"):
            jsonschema.validate(tree, SCHEMAS[tree["kind"]])


@pytest.mark.skipif(DEFINITIONS is None, reason="KUBERAY_CRDS names no folder with the operator's definitions")
@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_file_is_what_the_whole_definitions_take(file: Path) -> None:
    tree = read(file)
    assert DEFINITIONS is not None
    whole = yaml.load((Path(DEFINITIONS) / f"ray.io_{tree['kind'].lower()}s.yaml").read_text(), yaml.CSafeLoader)
    [schema] = [one["schema"]["openAPIV3Schema"] for one in whole["spec"]["versions"] if one["name"] == "v1"]
    spec = closed(schema["properties"]["spec"])
    checker = jsonschema.Draft7Validator(spec)  # `validate` would check the schema, too, for minutes
    checker.validate(tree["spec"])
    with pytest.raises(jsonschema.ValidationError):
        checker.validate({**tree["spec"], "mispelt": 1})


@pytest.mark.parametrize("file", FILES, ids=named)
def test_all_want_a_token_from_a_secret_and_this_ray(file: Path) -> None:
    cluster = cluster_of(read(file))
    assert cluster["authOptions"] == {"mode": "token", "secretName": "rayrlhf-token"}
    assert cluster["rayVersion"].rpartition(".")[0] == ray.__version__.rpartition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_mount_has_a_volume(file: Path) -> None:
    for pod in pods(read(file)):
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("file", FILES[:2], ids=named)
def test_only_rollouts_are_on_spot_nodes(file: Path) -> None:
    cluster = cluster_of(read(file))
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]} | {"head": cluster["headGroupSpec"]}
    for name, group in groups.items():
        spot = "nodeSelector" in group["template"]["spec"]
        assert spot == (name == "rollout")
        assert group["resources"] == ({"rollout": "1"} if spot else {"durable": "1"})


def test_the_service_serves_what_serve_cluster_yaml_does() -> None:
    served = yaml.safe_load(read(ROOT / "clusters/kuberay/rayservice.yaml")["spec"]["serveConfigV2"])
    theirs = yaml.safe_load((ROOT / "serve" / "cluster.yaml").read_text())
    assert re.sub("/mnt/runs/[^']*", "", str(served)) == re.sub("/mnt/runs/[^']*", "", str(theirs))

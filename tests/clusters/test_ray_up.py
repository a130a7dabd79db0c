"""`clusters/aws.yaml` and `clusters/gcp.yaml`, as far as `ray up` looks at them before it calls the cloud."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FOLDER = Path(__file__).parents[2] / "clusters"
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
CLOUDS = ("aws", "gcp")


def read(cloud: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / f"{cloud}.yaml").read_text())
    return loaded


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_file_is_one_of_rays(cloud: str) -> None:
    jsonschema.validate(read(cloud), SCHEMA)
    whole = prepare_config(copy.deepcopy(read(cloud)))  # with Ray's defaults, as `ray up` does
    validate_config(whole)
    assert whole["cluster_synced_files"] == []
    started = whole["head_start_ray_commands"] + whole["worker_start_ray_commands"]
    assert not any("ray-wheels" in command for command in whole["setup_commands"]), "no other Ray is installed"
    assert sum("ray start" in command for command in started) == 2


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("place", [(), ("auth",), ("docker",), ("available_node_types", "head")])
def test_an_unknown_key_is_refused(cloud: str, place: tuple[str, ...]) -> None:
    config = read(cloud)
    at = config
    for key in place:
        at = at[key]
    at["mispelt"] = {}
    with pytest.raises(jsonschema.ValidationError, match="mispelt"):
        jsonschema.validate(config, SCHEMA)


def is_spot(cloud: str, node: dict[str, Any]) -> bool:
    if cloud == "aws":
        return bool(node.get("InstanceMarketOptions", {}).get("MarketType") == "spot")
    return bool(node.get("scheduling", {}).get("provisioningModel") == "SPOT")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_only_rollouts_are_on_spot_nodes(cloud: str) -> None:
    kinds = read(cloud)["available_node_types"]
    assert set(kinds) == {"head", "learner", "rollout"}
    for name, kind in kinds.items():
        spot = is_spot(cloud, kind["node_config"])
        assert spot == (name == "rollout")
        assert ("rollout" in kind["resources"]) == spot and ("durable" in kind["resources"]) == (not spot)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nobody_comes_in_without_a_token(cloud: str) -> None:
    config = read(cloud)
    options = config["docker"]["run_options"]
    assert "-e RAY_AUTH_MODE=token" in options
    [path] = [option.partition("RAY_AUTH_TOKEN_PATH=")[2] for option in options if "RAY_AUTH_TOKEN_PATH" in option]
    assert path in config["file_mounts"]
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])

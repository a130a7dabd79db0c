"""Exported policies: in a process that has neither Ray nor this package, the actions that the endpoint gives."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rayrlhf.config import PpoOptions, SacOptions
from rayrlhf.errors import UserError
from rayrlhf.policies import Actor, DeployedPolicy, GaussianActor, SquashedActor
from rayrlhf.policies.export import WRITERS

LOW, HIGH = np.float32([-0.2, -3.0, 2.0]), np.float32([0.1, 1.0, 2.0])
CARD = {"task": "a task", "version": "7-abc", "action": {"low": LOW.tolist()}, "labels": 3, "measured": None}
ALONE = """
import importlib.abc, json, sys

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "rayrlhf"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing())
import numpy as np
file, inputs, outputs = sys.argv[1:]
obs = np.load(inputs)
if file.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(file)
    action = {size: session.run(["action"], {"obs": obs[:size]})[0] for size in (1, 2, len(obs))}
    card = session.get_modelmeta().custom_metadata_map
else:
    import torch
    extra = {"card.json": ""}
    policy = torch.jit.load(file, _extra_files=extra)
    action = {size: policy(torch.from_numpy(obs[:size])).numpy() for size in (1, 2, len(obs))}
    card = json.loads(extra["card.json"])
np.savez(outputs, *action.values())
print(json.dumps(card))
"""


def run_alone(file: Path, obs: np.ndarray) -> tuple[list[np.ndarray], dict[str, object]]:
    """Actions of the first one, two and of all `obs`, and the card, from a process of its own."""
    inputs, outputs = file.with_suffix(".in.npy"), file.with_suffix(".out.npz")
    np.save(inputs, obs)
    command = [sys.executable, "-c", ALONE, str(file), str(inputs), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(outputs) as found:
        return [found[name] for name in found.files], json.loads(done.stdout.splitlines()[-1])


def _pebbles() -> Actor:
    return SquashedActor(5, 3, SacOptions(hidden=(32, 32)))


def _prefppos() -> Actor:
    """One that has seen observations, and has learnt to act."""
    actor = GaussianActor(5, 3, PpoOptions(hidden=(32, 32)))
    assert actor.moments is not None
    actor.moments.update(torch.randn(1000, 5) * torch.tensor([1.0, 2.0, 0.1, 0.0, 5.0]) + 0.5)
    actor.trunk[-1].weight.data *= 200
    return actor


@pytest.mark.parametrize("make", [_pebbles, _prefppos])
@pytest.mark.parametrize(("format_", "ending"), [("onnx", ".onnx"), ("torchscript", ".pt")])
def test_what_is_written_acts_alike_elsewhere(
    format_: str, ending: str, make: Callable[[], Actor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    policy = DeployedPolicy(make(), LOW, HIGH).eval()
    rng = np.random.default_rng(0)
    obs = np.concatenate([rng.normal(size=(20, 5)), 1e5 * rng.normal(size=(20, 5))]).astype(np.float32)
    with torch.inference_mode():
        expected = policy(torch.from_numpy(obs)).numpy()
    file = tmp_path / f"policy{ending}"
    file.write_bytes(WRITERS[format_](policy, 5, CARD))
    found, card = run_alone(file, obs)
    for actions in found:
        np.testing.assert_allclose(actions, expected[: len(actions)], atol=1e-5)
        assert (actions >= LOW).all() and (actions <= HIGH).all()
    assert [len(actions) for actions in found] == [1, 2, 40]
    assert np.ptp(expected[:20, 1]) > 0.1 and ((expected == HIGH) | (expected == LOW)).any(axis=0).all()
    assert card["task"] == "a task" and card["version"] == "7-abc"
    action = card["action"]
    assert (json.loads(action) if isinstance(action, str) else action) == CARD["action"]


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    policy = DeployedPolicy(SquashedActor(5, 3, SacOptions(hidden=(8,))), LOW, HIGH)
    with pytest.raises(UserError, match=r"pip install rayrlhf\[onnx\]"):
        WRITERS["onnx"](policy, 5, CARD)

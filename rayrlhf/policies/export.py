"""A policy as a file for programs without this one: ONNX or TorchScript, with its card inside."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from rayrlhf.errors import UserError
from rayrlhf.policies.deployed import DeployedPolicy

Card = Mapping[str, Any]
"""What the file says of itself, plain JSON."""
INPUT, OUTPUT = "obs", "action"
CARD_FILE = "card.json"
"""Under which TorchScript keeps the card, as an extra file."""


def as_onnx(policy: DeployedPolicy, obs_dim: int, card: Card) -> bytes:
    """Input `obs` `[batch, O]`, output `action` `[batch, A]`, both float32; the card's entries are metadata.

    Raises `UserError` where the extra `onnx` is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise UserError("ONNX files need the packages onnx and onnxscript: `pip install rayrlhf[onnx]`") from error
    with _quietly():
        program = torch.onnx.export(
            policy,
            (torch.zeros(2, obs_dim),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.producer_name, model.doc_string = "rayrlhf", f"policy of {card['task']}, version {card['version']}"
    onnx.helper.set_model_props(model, {name: _text(value) for name, value in card.items()})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def as_torchscript(policy: DeployedPolicy, obs_dim: int, card: Card) -> bytes:
    """For `torch.jit.load`: `[B, O]` in, `[B, A]` out; the card is its extra file `card.json`."""
    written = io.BytesIO()
    with _quietly():
        frozen = copy.deepcopy(policy).requires_grad_(False)  # or whoever calls would have to say `no_grad`
        traced = torch.jit.trace(frozen, (torch.zeros(2, obs_dim),))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, written, _extra_files={CARD_FILE: json.dumps(card)})
    return written.getvalue()


WRITERS: dict[str, Callable[[DeployedPolicy, int, Card], bytes]] = {"onnx": as_onnx, "torchscript": as_torchscript}
ENDINGS = {"onnx": ".onnx", "torchscript": ".pt"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch's exporters say about their own future."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)

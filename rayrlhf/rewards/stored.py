"""A fitted ensemble as one file: safetensors, with what it takes to use it in the file's own metadata. No pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rayrlhf.config import RewardOptions
from rayrlhf.errors import UserError, in_one_line
from rayrlhf.files import write_atomically
from rayrlhf.rewards.members import Arrays
from rayrlhf.rewards.scorer import RewardScorer

FILE = "reward_model.safetensors"
"""What the file is called in a folder."""
FEW_SHOT = "few_shot.safetensors"
"""What weights that fits begin from are called there."""
PAIRS = "pairs"
"""The fact that lists which pairs it was fitted to, and tested on, by `Queries.pairs`."""
FORMAT = 1
_KEY = "rayrlhf.reward_model"
_MUST_AGREE = ("network", "members", "hidden", "output", "normalize_inputs")
"""Options without which the weights mean something else. The scale of `normalize_rewards` is one of the weights."""


@dataclass(frozen=True)
class RewardModel:
    """A whole ensemble that is not fitted any more.

    obs_dim, action_dim: the widths `O` and `A` that it takes
    weights: as `RewardEnsemble.weights` gives them
    facts:   what else is known of it, plain JSON: what it was fitted to, how well
    """

    options: RewardOptions
    obs_dim: int
    action_dim: int
    weights: Arrays
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> frozenset[str]:
        """Which pairs of segments it has seen the answers to, by `Queries.pairs`, as far as its file says."""
        listed = self.facts.get(PAIRS)
        return frozenset(pair for pair in listed if isinstance(pair, str)) if isinstance(listed, list) else frozenset()

    def scorer(self, *, threads: int | None = None) -> RewardScorer:
        """What scores transitions. Raises ValueError where weights and options do not go together."""
        scorer = RewardScorer(self.options, self.obs_dim, self.action_dim, threads=threads)
        scorer.load(self.weights)
        return scorer

    def require_fit(self, options: RewardOptions, obs_dim: int, action_dim: int) -> None:
        """Refuses, in one line, to be the reward model of a run with these options and widths."""
        source = options.from_ or options.few_shot or "the reward model"
        if (self.obs_dim, self.action_dim) != (obs_dim, action_dim):
            raise UserError(
                f"{source} is for observations of {self.obs_dim} numbers and actions of {self.action_dim}, and the "
                f"environment has {obs_dim} and {action_dim}: take one that was fitted for it"
            )
        own = {name: getattr(self.options, name) for name in _MUST_AGREE}
        if others := {name: value for name, value in own.items() if getattr(options, name) != value}:
            wanted = " ".join(f"--reward.{name} {_written(value)}" for name, value in others.items())
            name, value = next(iter(others.items()))
            advice = f"; add {wanted}" if "network" not in others else ""  # whose class would be imported
            raise UserError(
                f"{source} was fitted with reward.{name}={_written(value)}, this run has "
                f"reward.{name}={_written(getattr(options, name))}: they must agree{advice}"
            )
        try:  # only now: the options name a class to import, and are the run's own
            self.scorer(threads=1)
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(f"{source} is damaged: {in_one_line(error)}") from error

    def save(self, file: Path) -> None:
        """Writes the file, whole or not at all. Raises `UserError` where the disk refuses."""
        about = {
            "format": FORMAT,
            "options": self.options.model_dump(mode="json", by_alias=True),
            "obs_dim": self.obs_dim,
            "action_dim": self.action_dim,
            "facts": dict(self.facts),
        }
        arrays = {name: np.asarray(array, order="C") for name, array in self.weights.items()}
        write_atomically(file, save(arrays, metadata={_KEY: json.dumps(about)}))

    @classmethod
    def load(cls, file: Path) -> "RewardModel":
        """Reads what `save` wrote. Raises `UserError` where `file` is none, is damaged, or is of a newer version."""
        try:
            with safe_open(file, framework="np") as opened:
                text = (opened.metadata() or {}).get(_KEY)
                weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"cannot read the reward model {file}: {in_one_line(error)}") from error
        if text is None:
            raise UserError(f"{file} is no reward model: wanted what `rayrlhf fit` wrote")
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise UserError(f"{file} is damaged: a weight is not finite")
        return cls._of(file, text, weights)

    @classmethod
    def _of(cls, file: Path, text: str, weights: Arrays) -> "RewardModel":
        try:
            about = json.loads(text)
            if about["format"] > FORMAT:
                raise UserError(f"{file} has format {about['format']}, this rayrlhf reads {FORMAT}: upgrade rayrlhf")
            options = RewardOptions.model_validate(about["options"])
            facts = about["facts"]
            if not isinstance(facts, dict):
                raise ValueError(f"its facts are {type(facts).__name__}")
            return cls(options, int(about["obs_dim"]), int(about["action_dim"]), weights, facts)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise UserError(f"{file} is damaged, or of another version: {in_one_line(error)}") from error


def scoring_part(state: Mapping[str, Any]) -> Arrays:
    """What of an ensemble's state or weights its scores depend on."""
    wanted = ("members", "inputs/", "reward_scale", "network/")
    return {name: array for name, array in state.items() if name.startswith(wanted)}


def _written(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)

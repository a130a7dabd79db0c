"""Typed options of a run: declared in `schema`, read from presets, YAML and overrides in `load`."""

from rayrlhf.config.people import PeopleOptions, QueueOptions
from rayrlhf.config.schema import (
    CheckpointOptions,
    EnvOptions,
    EvaluationOptions,
    ExploreOptions,
    PpoOptions,
    QueryOptions,
    ResourceOptions,
    RewardOptions,
    RolloutOptions,
    RunConfig,
    SacOptions,
    TeacherOptions,
    TrackingOptions,
)

__all__ = [
    "CheckpointOptions",
    "EnvOptions",
    "EvaluationOptions",
    "ExploreOptions",
    "PeopleOptions",
    "PpoOptions",
    "QueryOptions",
    "QueueOptions",
    "ResourceOptions",
    "RewardOptions",
    "RolloutOptions",
    "RunConfig",
    "SacOptions",
    "TeacherOptions",
    "TrackingOptions",
]

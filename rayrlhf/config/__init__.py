"""Typed options of a run: declared in `schema`, read from presets, YAML and overrides in `load`."""

from rayrlhf.config.schema import (
    CheckpointOptions,
    EnvOptions,
    EvaluationOptions,
    ExploreOptions,
    QueryOptions,
    QueueOptions,
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

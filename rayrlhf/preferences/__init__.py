"""Segments, queries and answers: where they come from, how they are kept, how they travel."""

from rayrlhf.preferences.answers import TARGETS, Answer, Choice, Labels, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.fragments import Fragment
from rayrlhf.preferences.segments import Queries, Segments, query_id
from rayrlhf.preferences.trajectories import TrajectoryStore

__all__ = [
    "TARGETS",
    "Answer",
    "Choice",
    "Fragment",
    "Labels",
    "PreferenceDataset",
    "Queries",
    "Segments",
    "TrajectoryStore",
    "labels_from",
    "query_id",
]

"""The preference store: questions put to people, leases, answers and labels, in SQLite or PostgreSQL."""

from rayrlhf.preferences.store.database import Database, StoreUnavailable
from rayrlhf.preferences.store.records import Annotator, Decision, Lease, Question, Receipt, Refused, Run, Vote
from rayrlhf.preferences.store.store import PreferenceStore
from rayrlhf.preferences.store.voting import Verdict, decide

__all__ = [
    "Annotator",
    "Database",
    "Decision",
    "Lease",
    "PreferenceStore",
    "Question",
    "Receipt",
    "Refused",
    "Run",
    "StoreUnavailable",
    "Verdict",
    "Vote",
    "decide",
]

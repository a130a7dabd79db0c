"""The preference store: questions put to people, leases, answers and labels, in SQLite or PostgreSQL."""

from rayrlhf.preferences.store.accounts import Accounts, digest_of, new_token
from rayrlhf.preferences.store.database import Database, UnavailableError
from rayrlhf.preferences.store.records import (
    Annotator,
    Curves,
    Decision,
    Lease,
    Question,
    Receipt,
    RefusedError,
    Run,
    Vote,
)
from rayrlhf.preferences.store.reports import Answered, Person, Progress, Reports, RunInfo
from rayrlhf.preferences.store.store import PreferenceStore
from rayrlhf.preferences.store.voting import Verdict, decide

__all__ = [
    "Accounts",
    "Annotator",
    "Answered",
    "Curves",
    "Database",
    "Decision",
    "Lease",
    "Person",
    "PreferenceStore",
    "Progress",
    "Question",
    "Receipt",
    "RefusedError",
    "Reports",
    "Run",
    "RunInfo",
    "UnavailableError",
    "Verdict",
    "Vote",
    "decide",
    "digest_of",
    "new_token",
]

"""The tables of the preference store, the same in SQLite and PostgreSQL. Times are seconds since 1970.

    runs ──< queries ──< leases ──< answers        annotators

A run is whatever asks: a training run, or a file of pairs. A query is shown to an annotator under a lease, whose answer
belongs to it. Answers are never changed but for the mark of having been taken back.
"""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

NAME_LENGTH = 200
"""Most characters of a run's, an annotator's or a query's name."""

metadata = MetaData()

versions = Table(
    "rayrlhf_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", Float, nullable=False),
)

identities = Table(
    "rayrlhf_identity",
    metadata,
    Column("identity", String(32), primary_key=True),  # one row: this database's and no other's
)

runs = Table(
    "runs",
    metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("task", Text, nullable=False),
    Column("sentence", Text, nullable=False),  # what the robot is to do
    Column("guidelines", Text, nullable=False),
    Column("options", Text, nullable=False),  # QueueOptions as JSON
    Column("status", Text, nullable=False),  # what training does, as JSON
    Column("identity", Text, nullable=False),  # whose it is
    Column("created_at", Float, nullable=False),
)

queries = Table(
    "queries",
    metadata,
    Column("id", String(NAME_LENGTH), primary_key=True),
    Column("run", ForeignKey("runs.name"), nullable=False),
    Column("session", Integer, nullable=False),
    Column("position", Integer, nullable=False),  # in the order of asking
    Column("gold", String(5)),  # the known answer of a question that tests annotators
    Column("left_clip", Text),
    Column("right_clip", Text),
    Column("ready", Boolean, nullable=False),  # it may be shown
    Column("status", String(8), nullable=False),
    Column("wanted", Integer, nullable=False),  # answers, so far as anyone knows
    Column("choice", String(5)),
    Column("target", Float),
    Column("asked_at", Float, nullable=False),
    Column("decided_at", Float),
    Column("delivered_at", Float),
    Column("received", Boolean, nullable=False),  # whoever asked has the verdict
    Column("curves", Text),  # the learned reward along both segments, as JSON
    CheckConstraint("status IN ('open', 'label', 'skip', 'disputed', 'expired')", name="query_status"),
    Index("queries_by_time", "run", "decided_at"),
)
# in the order of asking, so that the first one is found without looking at the others
Index(
    "queries_to_ask",
    queries.c.run,
    queries.c.status,
    queries.c.ready,
    queries.c.session.desc(),
    queries.c.position,
    queries.c.id,
)

leases = Table(
    "leases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("query", ForeignKey("queries.id"), nullable=False),
    Column("annotator", String(NAME_LENGTH), nullable=False),
    Column("purpose", String(6), nullable=False),
    Column("flipped", Boolean, nullable=False),  # the left segment is shown on the right
    Column("granted_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("answered", Boolean, nullable=False),
    CheckConstraint("purpose IN ('vote', 'gold', 'repeat')", name="lease_purpose"),
    UniqueConstraint("query", "annotator", "purpose"),
    Index("leases_of_annotator", "annotator", "answered"),
)

answers = Table(
    "answers",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("lease", ForeignKey("leases.id"), nullable=False),
    Column(
        "key", String(NAME_LENGTH), nullable=False, unique=True
    ),  # the sender's, so that a repeated call does nothing
    Column("choice", String(5), nullable=False),  # of the query's own left and right, however they were shown
    Column("seconds", Float, nullable=False),
    Column("replays", Integer, nullable=False),
    Column("answered_at", Float, nullable=False),
    Column("counted", Boolean, nullable=False),  # a vote that came in time
    Column("undone_at", Float),
    CheckConstraint("choice IN ('left', 'right', 'equal', 'skip')", name="answer_choice"),
)
Index(
    "answers_one_a_lease",
    answers.c.lease,
    unique=True,
    sqlite_where=answers.c.undone_at.is_(None),
    postgresql_where=answers.c.undone_at.is_(None),
)

annotators = Table(
    "annotators",
    metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("role", String(9), nullable=False),
    Column("token_digest", String(64), unique=True),
    Column("created_at", Float, nullable=False),
    Column("disabled_at", Float),
    CheckConstraint("role IN ('annotator', 'trainer', 'admin')", name="annotator_role"),
)

instructions = Table(  # what the robot is to do, where that differs from question to question
    "instructions",
    metadata,
    Column("query", ForeignKey("queries.id"), primary_key=True),
    Column("sentence", Text, nullable=False),
)

VERSION_1 = (versions, runs, queries, leases, answers, annotators)
"""What a database of the schema's first version has."""

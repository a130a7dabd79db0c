"""The queue on this machine, for as long as a block lasts: what `rayrlhf label` and `train --teacher human` start."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rayrlhf.actors.people import identity_of
from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.preferences.client import TOKEN_VARIABLE, QueueAddress, QueueClient
from rayrlhf.preferences.store import Accounts, Database, Reports, UnavailableError
from rayrlhf.preferences.store.records import Role
from rayrlhf.serving.deploy import queue_deployment
from rayrlhf.serving.links import ADMIN, STANDARD, TRAINER, link, tokens_of
from rayrlhf.serving.running import serving
from rayrlhf.serving.settings import QueueSettings
from rayrlhf.tracking import RunDirectory

JOIN_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """Where a queue keeps its things.

    database: an SQLite file or `postgresql://...`   clips: a folder   links: file of the tokens
    identity: the run's whose queue it is, if it is a run's
    """

    database: str
    clips: str
    links: Path
    identity: str | None = None

    @classmethod
    def of_folder(cls, folder: Path, database: str | None = None, identity: str | None = None) -> "Place":
        """Everything in one folder, but for a database elsewhere."""
        clips = str((folder / "clips").absolute())
        return cls(database or str(folder / "queue.sqlite"), clips, folder / "links.json", identity)

    @classmethod
    def of_run(cls, run: RunDirectory) -> "Place":
        """A run's. UserError where it asked nobody."""
        people = run.config().people
        if people.url is not None:
            raise UserError(f"{run.path} asks in the queue at {people.url}: its page is there")
        database = people.database or str(run.queue_file)
        if "://" not in database and not Path(database).is_file():
            raise UserError(f"{run.path} asked nobody: train it with --teacher human, or label clips with --pairs")
        return cls.of_folder(run.path, database, identity_of(run.path))


@dataclass(frozen=True)
class Labelling:
    """A queue that is served: its address, everybody's token, and what it holds."""

    url: str
    tokens: Mapping[str, str] = field(repr=False)
    reports: Reports


@contextmanager
def labelling(place: Place, names: tuple[str, ...], host: str, port: int) -> Iterator[Labelling]:
    """Serves the queue at `place` to the annotators `names` while the block lasts. Ray must run.

    Raises:
        UserError: a name is the queue's own, the database does not answer or has a queue of another folder's.
    """
    if taken := STANDARD.keys() & set(names):
        raise UserError(f"{taken.pop()!r} is the queue's own name: give the annotator another one")
    database = Database(place.database)
    try:
        accounts = Accounts(database)
        reports = Reports(database)
        shared = not database.is_sqlite and not place.links.is_file() and reports.identities() != {place.identity}
        if shared and any(account.name == TRAINER for account, _ in accounts.all()):
            raise UserError(
                "the database has another folder's queue: let one `rayrlhf label --database` serve it, and give runs "
                "its address (--people.url)"
            )
        annotators: dict[str, Role] = dict.fromkeys(names, "annotator")
        wanted = {**STANDARD, **annotators}
        tokens = tokens_of(accounts, wanted, place.links)
        deployment = queue_deployment(QueueSettings(database=place.database, clips=place.clips))
        with serving(deployment, "queue", host, port) as url:
            yield Labelling(url, tokens, reports)
    finally:
        database.close()


@contextmanager
def queue_of_run(config: RunConfig, folder: RunDirectory, tell: Callable[[str], None]) -> Iterator[QueueAddress]:
    """The queue in which the people of a run answer: the one that its options name, or one of its own.

    `tell` is told who answers where. Ray must run.
    """
    people = config.people
    if people.url is not None:
        yield _elsewhere(people.url, tell, goes_on=any(folder.checkpoints.glob("step-*")))
        return
    place = Place.of_folder(folder.path, people.database, identity_of(folder.path))
    with labelling(place, people.names, people.host, people.port) as queue:
        for line in links_of(queue.url, queue.tokens, folder.name):
            tell(line)
        for name in people.names:
            if name not in queue.tokens:
                tell(f"{name:<12}keeps the link they were given; a new one is made on the admin's page")
        yield QueueAddress(queue.url, queue.tokens[TRAINER])


def links_of(url: str, tokens: Mapping[str, str], run: str | None = None) -> list[str]:
    """A line for everybody with a page to look at."""
    people = {name: token for name, token in tokens.items() if name != TRAINER}
    return [f"{name:<12}{link(url, token, run if name != ADMIN else None)}" for name, token in people.items()]


def _elsewhere(url: str, tell: Callable[[str], None], *, goes_on: bool) -> QueueAddress:
    """A queue that runs already. UserError where it does not answer, or not to who has the token.

    A run that goes on does so while the queue is away: at its beginning the address may be a mistake.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise UserError(f"the queue at {url} wants a token: set {TOKEN_VARIABLE} to that of a trainer's account")
    with QueueClient(url, token, patience=JOIN_SECONDS) as client:
        try:
            role = client.me().role
        except UnavailableError as error:
            if not goes_on:
                raise
            tell(f"{error}: training goes on, and people are asked when it is there")
        else:
            if role == "annotator":
                raise UserError(f"the token in {TOKEN_VARIABLE} is an annotator's: training wants a trainer's")
    return QueueAddress(url, token)

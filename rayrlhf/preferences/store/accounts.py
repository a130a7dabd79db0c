"""Who may use the queue: names, roles and tokens. Only digests of tokens are stored."""

import hashlib
import re
import secrets

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from rayrlhf.config.options import ACCOUNT_PATTERN
from rayrlhf.errors import UserError
from rayrlhf.preferences.store.database import Database
from rayrlhf.preferences.store.records import Annotator, RefusedError, Role
from rayrlhf.preferences.store.tables import annotators

_TOKEN_BYTES = 32


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Accounts:
    """The people and programs that `database` knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, role: Role, token: str | None = None) -> str:
        """A new account's token, which is shown this once; drawn unless it was before.

        Raises:
            UserError: `name` is no plain name.
            RefusedError: it is taken.
        """
        if not re.fullmatch(ACCOUNT_PATTERN, name):
            raise UserError(f"{name!r} is no name for an account: letters, digits, spaces and . @ + - _, at most 100")
        token = token or new_token()
        row = {"name": name, "role": role, "token_digest": digest_of(token), "created_at": self._database.clock.now()}
        try:
            with self._database.writing() as connection:
                connection.execute(insert(annotators).values(row))
        except IntegrityError as error:
            message = f"there is an account {name!r} already: renew its token, or choose another name"
            raise RefusedError("conflict", message) from error
        return token

    def ensure(self, name: str, role: Role, digest: str) -> None:
        """Has an account whose token has this SHA-256; one that is there gets role and token anew."""
        values = {"role": role, "token_digest": digest, "disabled_at": None}
        with self._database.writing() as connection:
            if not connection.execute(update(annotators).where(annotators.c.name == name).values(values)).rowcount:
                made = {"name": name, "created_at": self._database.clock.now(), **values}
                connection.execute(insert(annotators).values(made))

    def renew(self, name: str) -> str:
        """Another token for an account, which ends the one before and any disabling."""
        token = new_token()
        self._change(name, {"token_digest": digest_of(token), "disabled_at": None})
        return token

    def disable(self, name: str) -> None:
        """Ends an account's token; its answers stay."""
        self._change(name, {"disabled_at": self._database.clock.now()})

    def _change(self, name: str, values: dict[str, object]) -> None:
        with self._database.writing() as connection:
            if not connection.execute(update(annotators).where(annotators.c.name == name).values(values)).rowcount:
                raise RefusedError("unknown", f"there is no account {name!r}")

    def who(self, token: str) -> Annotator | None:
        """Whose token this is; none for a wrong or a disabled one.

        Tokens are looked up by their digests: how long that takes says nothing of them.
        """
        if not token:
            return None
        digest = digest_of(token)
        known = select(annotators).where(annotators.c.token_digest == digest, annotators.c.disabled_at.is_(None))
        with self._database.reading() as connection:
            row = connection.execute(known).one_or_none()
        return None if row is None else Annotator(row.name, row.role)

    def all(self) -> list[tuple[Annotator, bool]]:
        """Every account, and whether it may be used, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(annotators).order_by(annotators.c.name)).all()
        return [(Annotator(row.name, row.role), row.disabled_at is None) for row in rows]

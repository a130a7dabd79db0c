"""Accounts of a queue on this machine, and the links that carry their tokens."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from rayrlhf.errors import UserError
from rayrlhf.files import write_atomically
from rayrlhf.preferences.store import Accounts, RefusedError
from rayrlhf.preferences.store.records import Role


def tokens_of(accounts: Accounts, wanted: Mapping[str, Role], file: Path) -> dict[str, str]:
    """A token for each account in `wanted`, kept in `file`, which only its owner may read: links outlive a restart.

    Raises:
        UserError: an account is there already and its token is not in `file`.
    """
    known = _read(file)
    tokens = {}
    for name, role in wanted.items():
        token = known.get(name, "")
        who = accounts.who(token) if token else None
        tokens[name] = token if who is not None and (who.name, who.role) == (name, role) else _new(accounts, name, role)
    if known != tokens:
        file.touch(mode=0o600)
        write_atomically(file, json.dumps({**known, **tokens}, indent=1))
        os.chmod(file, 0o600)
    return tokens


def link(url: str, token: str, run: str | None = None) -> str:
    """The page's address for whoever has `token`. What stands behind the # is never sent to a server."""
    return f"{url}/#token={token}" + (f"&run={run}" if run else "")


def _new(accounts: Accounts, name: str, role: Role) -> str:
    try:
        return accounts.add(name, role)
    except RefusedError as error:
        raise UserError(
            f"{error}: whoever made it has its token (it is not in the links of this folder); choose another name"
        ) from error


def _read(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged: move it away, and give people new links by `rayrlhf label`")
    return found

"""Accounts of a queue on this machine, and the links that carry their tokens."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from rayrlhf.files import read_object, write_atomically
from rayrlhf.preferences.store import Accounts, new_token
from rayrlhf.preferences.store.records import Role

TRAINER, ADMIN = "training", "admin"
STANDARD: dict[str, Role] = {TRAINER: "trainer", ADMIN: "admin"}
"""Accounts that every queue on this machine has."""
_OWNERS = 0o600


def tokens_of(accounts: Accounts, wanted: Mapping[str, Role], file: Path) -> dict[str, str]:
    """A token for each account in `wanted`, kept in `file`, which only its owner may read: links outlive a restart.

    An annotator who was given another link on the page, or was disabled there, has none here. Trainers and admins
    whose tokens are unknown get new ones.
    """
    known = read_object(file, "move it away; annotators keep their links, or get new ones on the page") or {}
    there = {account.name: usable for account, usable in accounts.all()}
    # in the file before the accounts are made: a crash in between leaves no account without its token
    drawn = {name: known.get(name) or new_token() for name in wanted if name not in there}
    if drawn.keys() - known.keys():
        write_atomically(file, json.dumps({**known, **drawn}, indent=1), mode=_OWNERS)
    for name, token in drawn.items():
        accounts.add(name, wanted[name], token)
    found = {**known, **drawn}
    for name, role in wanted.items():
        who = accounts.who(found.get(name, ""))
        if who is not None and who.name == name:
            continue
        if role == "annotator":
            found.pop(name, None)
        else:
            found[name] = accounts.renew(name)
    if found != known:
        write_atomically(file, json.dumps(found, indent=1), mode=_OWNERS)
    if file.is_file():
        os.chmod(file, _OWNERS)
    return {name: found[name] for name in wanted if name in found}


def link(url: str, token: str, run: str | None = None) -> str:
    """The page's address for whoever has `token`. What stands behind the # is never sent to a server."""
    return f"{url}/#token={token}" + (f"&run={quote(run, safe='')}" if run else "")

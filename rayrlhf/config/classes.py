"""Options that name a class of the user's own: as `package.module:Class`, or as its package calls it (entry points)."""

import importlib
from importlib.metadata import entry_points
from typing import Any

from rayrlhf.errors import UserError, in_one_line, nearest


def imported(option: str, path: str) -> Any:
    """What lies at `path`, the value of `option`. Raises `UserError`, one line, that says what is missing."""
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise UserError(f"{option} is {path!r}: a class of your own is written 'package.module:Class'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"{option} {path!r} cannot be imported: {error}; install it or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:  # whatever runs when it is imported
        raise UserError(f"{option} {path!r} cannot be imported: {in_one_line(error)} (--debug shows where)") from error
    found: Any = module
    for part in name.split("."):  # an entry point may name a class within a class
        holder, found = found, getattr(found, part, None)
        if found is None:
            raise UserError(f"{option}: {module_name!r} has no {name!r}{nearest(part, dir(holder))}")
    return found


def installed(group: str) -> dict[str, str]:
    """What installed packages offer in the entry point group `group`: the class' path by its name, sorted.

    Raises `UserError` where two packages give one name to different classes.
    """
    found: dict[str, str] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        if found.setdefault(entry.name, entry.value) != entry.value:
            raise UserError(
                f"two installed packages call something {entry.name!r} in {group}: {found[entry.name]} and "
                f"{entry.value}; name the one that is meant by that path"
            )
    return found

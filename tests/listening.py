"""Who can reach a process."""

import psutil


def addresses_of(pid: int) -> set[str]:
    """The addresses at which a process and those that it started listen: a server's own, and all of Ray's."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = [one.laddr.ip for each in family for one in each.net_connections("inet") if one.status == "LISTEN"]
    assert len(found) > 5
    return {address.removeprefix("::ffff:") for address in found}

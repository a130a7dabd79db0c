"""`rayrlhf serve`: trained policies over HTTP, from this machine."""

import json
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say
from rayrlhf.errors import UserError
from rayrlhf.files import is_url
from rayrlhf.preferences.client import TOKEN_VARIABLE, is_loopback
from rayrlhf.serving.address import free_port

RUNS = Path("runs")
"""Where runs are, unless their options say otherwise."""


@dataclass(frozen=True)
class ServeOptions:
    """Serve the policies of runs or checkpoints over HTTP until Ctrl-C."""

    targets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN|CHECKPOINT")] = ()
    """Folders or URLs of runs (their newest checkpoints) or of checkpoints; a policy's name is its task unless given.
    None: the run under runs/ that trained last."""
    host: str = "127.0.0.1"
    """Where to listen; anything but this machine itself needs a token."""
    port: int = 8422
    """0 takes a free one."""
    watch: bool = False
    """Go on to the newest checkpoint of a run while training writes them."""
    replicas: int = 1
    """Processes that answer."""
    max_replicas: int | None = None
    """Up to so many while the load is high."""
    token: bool = False
    """Ask callers for the token that is in the variable RAYRLHF_TOKEN."""
    new_token: bool = False
    """Ask callers for a token that is made now and shown once."""
    json: bool = False
    """Print one JSON object when the endpoint is up."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf serve ARGS`."""
    options = parse(ServeOptions, args, "serve")
    token = _token(options)
    port = free_port(options.host, options.port)
    if options.replicas < 1:
        raise UserError(f"--replicas is {options.replicas}, wanted a whole number above 0")
    # imported here, so that help and mistakes come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.cluster import ray_session
    from rayrlhf.cores import free_cores
    from rayrlhf.preferences.store import digest_of
    from rayrlhf.serving.apps import policy
    from rayrlhf.serving.policy_settings import PolicySettings
    from rayrlhf.serving.running import serving
    from rayrlhf.tracking import native_stderr_to
    from rayrlhf.trained import newest_run

    targets = options.targets or (str(newest_run(RUNS).path),)
    cards = cards_of(targets, watch=options.watch)
    settings = PolicySettings(
        models={name: card["target"] for name, card in cards.items()},
        watch=options.watch,
        token_digests=() if token is None else (digest_of(token),),
        min_replicas=options.replicas,
        max_replicas=options.replicas if options.max_replicas is None else options.max_replicas,
    )
    application = policy(settings)
    cpus = max(free_cores(), settings.max_replicas + 1)
    quiet = native_stderr_to(Path(os.devnull))
    with one_line(), quiet, ray_session(cpus), serving(application, "policy", options.host, port) as url:
        if not options.targets:
            say(f"serving {targets[0]}, the run that trained last")
        _show(url, cards, token if options.new_token else None, wanted=token is not None)
        finish({"url": url, "models": list(cards), "token": token if options.new_token else None}, as_json=options.json)
        _until_interrupted()
    if not options.json:
        say("stopped")
    return 0


def _token(options: ServeOptions) -> str | None:
    if options.token and options.new_token:
        raise UserError("--token takes the one in RAYRLHF_TOKEN and --new-token makes one: choose")
    if options.new_token:
        from rayrlhf.preferences.store import new_token

        return new_token()
    if options.token:
        found = os.environ.get(TOKEN_VARIABLE, "")
        if len(found) < 16:
            raise UserError(
                f"--token wants a token of at least 16 characters in the variable {TOKEN_VARIABLE}; see --new-token"
            )
        return found
    if not is_loopback(options.host):
        raise UserError(
            f"--host {options.host} lets other machines call: give --new-token, or --token and {TOKEN_VARIABLE}"
        )
    return None


def cards_of(targets: Sequence[str], *, watch: bool) -> dict[str, dict[str, Any]]:
    """By a policy's name its card, with `target`. `UserError` where one cannot be loaded, or two share a name."""
    from rayrlhf.remote import local
    from rayrlhf.trained import load_newest

    found: dict[str, dict[str, Any]] = {}
    for word in targets:
        given, equals, path = word.partition("=")
        if Path(word).exists() or not equals or is_url(given):  # options of a URL are set by `=`, too
            given, path = "", word
        if watch and is_url(path):
            raise UserError(f"--watch follows a run's folder on this machine, or a mounted one, not {path}")
        place = local(path)
        trained = load_newest(place)
        if watch and trained.place == place.resolve():
            raise UserError(f"--watch follows runs, and {path} is one checkpoint: give {trained.run.path}")
        name = given or trained.name
        if name in found:
            raise UserError(f"two of them are called {name!r}: name them, as in {name}-2={path}")
        found[name] = {**trained.card(), "target": str(place.resolve())}
    return found


def _until_interrupted() -> None:
    """Ctrl-C and SIGTERM end it; Ray has its own way with SIGTERM, which this comes after."""
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    while not done.wait(1.0):
        pass


def _show(url: str, cards: dict[str, dict[str, Any]], shown: str | None, *, wanted: bool) -> None:
    for name, card in cards.items():
        say(f"{name}: version {card['version']}, {card['env_steps']} steps, {card['labels']} labels")
    say(f"act      POST {url}/v1/act")
    say(f"reward   POST {url}/v1/reward")
    say(f"cards    {url}/v1/models")
    if shown is not None:
        say(f"token    {shown}")
    name, card = next(iter(cards.items()))
    body: dict[str, Any] = {"obs": [0] * card["observation"]["width"]}
    if len(cards) > 1:
        body["task"] = name
    bearer = f' -H "Authorization: Bearer ${TOKEN_VARIABLE}"' if wanted else ""
    say(f"\ncurl {url}/v1/act{bearer} -H 'Content-Type: application/json' -d '{json.dumps(body)}'\n")
    say("Ctrl-C ends it")

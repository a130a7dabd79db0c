"""`rayrlhf label`: the queue and the labelling page on this machine."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say
from rayrlhf.config import QueueOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.pairs import Pair, read_pairs
from rayrlhf.serving.address import free_port
from rayrlhf.tracking import RunDirectory

if TYPE_CHECKING:
    from rayrlhf.serving.labelling import Labelling, Place

_WRITE_SECONDS = 2.0
_CPUS = 2
_ME = ("me",)
_NAME_LENGTH = 60


@dataclass(frozen=True)
class LabelOptions:
    """Serve the page on which people answer: for runs elsewhere, for a run that stands still, or for clips."""

    run: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Folder of a run that asked people and does not train now: it learns from the answers when it is resumed."""
    pairs: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Clips to compare: a folder with NAME_left.mp4 beside NAME_right.mp4, or a .csv, .json, .jsonl or .parquet
    file of paths."""
    to: Path | None = None
    """With --pairs: where the answers go, as JSON lines; by default labels.jsonl in the storage. Labels that
    are in it already stay."""
    storage_path: Path = Path("labels")
    """Folder of the queue, where it is no run's."""
    database: str | None = None
    """`postgresql://USER@HOST/NAME` instead of a file there."""
    names: tuple[str, ...] = ()
    """Who answers; each gets a link of their own. By default those of the run, else `me`."""
    sentence: str = "Which of the two is better?"
    """With --pairs: what people are asked."""
    guidelines: str = ""
    """With --pairs: what they are told besides."""
    host: str = "127.0.0.1"
    """Address to listen on; beyond this machine only behind TLS."""
    port: int = 8421
    """Port to listen on; 0: a free one."""
    once: bool = False
    """With --pairs: end when everything is decided."""
    json: bool = False
    """Print one JSON object, as the last line."""
    queue: Annotated[QueueOptions, tyro.conf.arg(help="With --pairs: how answers become labels.")] = field(
        default_factory=QueueOptions
    )


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf label ARGS`."""
    options = parse(LabelOptions, args, "label")
    _refuse_what_does_nothing(options)
    pairs = None if options.pairs is None else read_pairs(options.pairs)
    free_port(options.host, options.port)
    # imported here, so that help and mistakes come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.cluster import ray_session
    from rayrlhf.serving.labelling import Place
    from rayrlhf.tracking import native_stderr_to

    with one_line():
        if options.run is not None:
            folder = RunDirectory.open(options.run)
            names = options.names or folder.config().people.names
            place = Place.of_run(folder)
            with folder.held(), native_stderr_to(folder.path / "ray.log"), ray_session(_CPUS):
                _label_run(place, options, folder.name, names)
            return 0
        options.storage_path.mkdir(parents=True, exist_ok=True)
        place = Place.of_folder(options.storage_path, options.database)
        with native_stderr_to(options.storage_path / "ray.log"), ray_session(_CPUS):
            if pairs is not None:
                _label_pairs(place, options, pairs)
            else:
                _label_run(place, options, None, options.names or _ME)
    return 0


def _refuse_what_does_nothing(options: LabelOptions) -> None:
    default = LabelOptions()

    def given(*names: str) -> list[str]:
        return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != getattr(default, name)]

    if options.run is not None and options.pairs is not None:
        raise UserError("--run and --pairs are two things: give one of them")
    if options.pairs is None and (useless := given("to", "sentence", "guidelines", "once", "queue")):
        raise UserError(f"{useless[0]} goes with --pairs")
    if options.run is not None and (useless := given("database", "storage_path")):
        raise UserError(f"{useless[0]} does not go with --run: the run has its own")


def _label_pairs(place: "Place", options: LabelOptions, pairs: list[Pair]) -> None:
    from rayrlhf.serving.labelling import labelling
    from rayrlhf.serving.pairs import ask_pairs, labels_in, rules_for, warning_of_lengths, write_labels

    assert options.pairs is not None
    name = re.sub(r"[^\w.@+-]+", "-", options.pairs.resolve().stem).strip(".-")[:_NAME_LENGTH] or "pairs"
    if (warning := warning_of_lengths(pairs)) is not None:
        say(warning)
    rules = rules_for(pairs, options.queue)
    said = {"sentence": options.sentence, "guidelines": options.guidelines}
    asked = ask_pairs(place, options.pairs, name, pairs, rules, **said)
    to = options.to or options.storage_path / "labels.jsonl"
    before = labels_in(to)
    wanted = sum(pair.gold is None for pair in pairs)
    with labelling(place, options.names or _ME, options.host, options.port) as queue:
        _tell(queue, name)
        decided, trouble = -1, ""
        with suppress(KeyboardInterrupt):
            while not (options.once and decided >= wanted):
                time.sleep(_WRITE_SECONDS)
                try:
                    now, failure = write_labels(to, queue.reports, name, asked, before), ""
                except UserError as error:  # the page goes on: answers are kept, and written when that is over
                    now, failure = decided, str(error)
                if failure and failure != trouble:
                    say(f"{to} is not up to date: {failure}")
                if now != decided:
                    say(f"{now} of {wanted} pairs are decided")
                decided, trouble = now, failure
        decided = write_labels(to, queue.reports, name, asked, before)
    say(f"labels  {to}")
    finish({"labels": str(to), "pairs": wanted, "decided": decided}, as_json=options.json)


def _label_run(place: "Place", options: LabelOptions, run: str | None, names: tuple[str, ...]) -> None:
    """Until Ctrl-C."""
    from rayrlhf.preferences.client import TOKEN_VARIABLE
    from rayrlhf.serving.labelling import labelling
    from rayrlhf.serving.links import TRAINER

    with labelling(place, names, options.host, options.port) as queue:
        _tell(queue, run)
        if run is None:
            say(f"for training: {TOKEN_VARIABLE}={queue.tokens[TRAINER]} rayrlhf train ... --teacher human \\")
            say(f"              --people.url {queue.url}")
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
        say("answers are kept; the same command serves the same links again")
    finish({"url": queue.url}, as_json=options.json)


def _tell(queue: "Labelling", run: str | None) -> None:
    from rayrlhf.serving.labelling import links_of

    for line in links_of(queue.url, queue.tokens, run):
        say(line)

"""`rayrlhf submit`: another verb as a job on a Ray cluster."""

import contextlib
import importlib.metadata
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rayrlhf import __version__
from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say
from rayrlhf.errors import UserError, nearest
from rayrlhf.files import is_url

if TYPE_CHECKING:
    from rayrlhf.jobs import Job

VERBS = ("train", "tune", "eval", "status", "bench", "export", "plot", "dataset", "doctor")
"""Those that come to an end and need nobody who watches."""
_FAILED = 1

Words = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class SubmitOptions:
    """Run another verb on a Ray cluster: `rayrlhf submit [OPTIONS] -- train CONFIG ...`, and follow its log.

    The exit code is 0 where the job succeeded, 1 where it failed or was stopped, 2 where it was not started.
    """

    address: str | None = None
    """The cluster: http://HEAD:8265. None: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or the Ray on this machine."""
    working_dir: str = "."
    """The folder that the job gets a copy of, without runs/, .git and what .gitignore names; or a ZIP file's URI."""
    package: str = "ship"
    """ship: the nodes get this rayrlhf, whether they have one or not. none: they use theirs. Anything else is a
    requirement that each node's pip installs with all it needs, such as rayrlhf[fast]==0.1.0."""
    pip: bool = False
    """With ship: each node's pip installs what rayrlhf requires, too, where the nodes lack it."""
    name: str | None = None
    """The job's id; no two jobs of a cluster share one."""
    entrypoint_cpus: float | None = None
    """CPUs to keep for the driver; without this and the next three it runs on the head node. What no node has is
    refused, but where the cluster grows: --no-wait hands it in all the same."""
    entrypoint_gpus: float | None = None
    """GPUs to keep for the driver, where the learner lives in it."""
    entrypoint_memory: int | None = None
    """Bytes of memory to keep for the driver."""
    entrypoint_resources: Words = ()
    """NAME=AMOUNT of a resource of the cluster's own to keep for the driver, such as durable=0.001."""
    env: Words = ()
    """NAME=VALUE, a variable for all processes of the job. The dashboard shows it: no secrets."""
    metadata: Words = ()
    """NAME=VALUE, to stand beside the job in the dashboard."""
    no_wait: bool = False
    """Hand it in and leave."""
    json: bool = False
    """Print the job's id, address and status as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf submit ARGS`."""
    own, words = _parted(args)
    options = parse(SubmitOptions, own, "submit")
    if options.package != "ship" and options.pip:
        raise UserError("--pip goes with --package ship; a requirement brings what it needs by itself")
    wanted = job(options, words)
    # imported here, so that help and mistakes come at once
    from rayrlhf.jobs import JobServer, LostClusterError

    server = JobServer(options.address)
    if not options.no_wait:
        server.require_node_for(wanted)
    name = server.submit(wanted)
    follow = f"ray job logs --address {server.url} --follow {name}"
    stop = f"ray job stop --address {server.url} {name}"
    say(f"{'job':<8}{name} at {server.url}")
    say(f"{'follow':<8}{follow}")
    say(f"{'stop':<8}{stop}")
    result = {"job": name, "address": server.url, "command": wanted.command}
    if options.no_wait:
        finish({**result, "status": "PENDING"}, as_json=options.json)
        return 0
    try:
        ending = server.follow(name, _write)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the job goes on; to follow it: {follow}; to stop it: {stop}") from None
    except LostClusterError as lost:
        return _failed(f"lost the cluster at {server.url} ({lost}); the job may go on: {follow}", result, options)
    if ending.succeeded:
        say(f"job {name} succeeded")
        finish({**result, "status": ending.status}, as_json=options.json)
        return 0
    why = f": {ending.why}" if ending.why else ""
    said = f"job {name} {'was stopped' if ending.status == 'STOPPED' else 'failed'}{why}"
    return _failed(said, {**result, "status": ending.status}, options)


def job(options: SubmitOptions, words: Sequence[str]) -> "Job":
    """What `options` and the words after `--` ask for. Raises `UserError` where the job would fail at once."""
    resources = {name: _amount(name, text) for name, text in _pairs(options.entrypoint_resources, "resources").items()}
    env, metadata = _pairs(options.env, "env"), _pairs(options.metadata, "metadata")
    remote = "://" in options.working_dir
    if not remote and not Path(options.working_dir).is_dir():
        raise UserError(f"--working-dir: there is no folder {options.working_dir!r}")
    # a ZIP file elsewhere cannot be looked into
    with contextlib.nullcontext() if remote else contextlib.chdir(options.working_dir):
        words, about = _checked(words, look=not remote)
    from rayrlhf.jobs import Job

    return Job(
        # exec: what stops the job stops Python, not a shell before it
        command=f"exec python -m rayrlhf {' '.join(words)}",
        working_dir=options.working_dir if remote else str(Path(options.working_dir).resolve()),
        ship=options.package == "ship",
        pip=_requirements() if options.pip else () if options.package in ("ship", "none") else (options.package,),
        env=env,
        metadata={"rayrlhf": __version__, **about, **metadata},
        id=options.name,
        cpus=options.entrypoint_cpus,
        gpus=options.entrypoint_gpus,
        memory=options.entrypoint_memory,
        resources=resources,
    )


def _parted(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The verb's own words, and those of the job."""
    if "--" not in args:
        if {"-h", "--help"} & set(args):
            return list(args), []
        raise UserError("what is the job? rayrlhf submit [OPTIONS] -- train CONFIG ...; see rayrlhf submit --help")
    at = list(args).index("--")
    own, words = list(args[:at]), list(args[at + 1 :])
    return own, words[1:] if words[:1] == ["rayrlhf"] else words


def _checked(words: Sequence[str], *, look: bool) -> tuple[list[str], dict[str, str]]:
    """The job's words for a shell, and what to say of it. Refuses what this machine can tell to be wrong."""
    if not words:
        raise UserError("what is the job? Nothing follows --; for instance: -- train quickstart")
    verb, *rest = words
    if verb not in VERBS:
        hint = nearest(verb, VERBS) or f"; jobs are {', '.join(VERBS)}"
        raise UserError(f"{verb!r} cannot be a job{hint}")
    about = {"verb": verb}
    said = [shlex.quote(word) for word in words]
    if verb == "train":
        more, told = _train(rest, look=look)
        return said + more, about | told
    if verb == "tune":
        more, told = _tune(rest, look=look)
        return said + more, about | told
    if verb in ("eval", "bench"):
        _parse_as(verb, rest)
    for option, where in _written(verb, rest):
        if where is None or not (Path(where).is_absolute() or is_url(where)):
            raise UserError(f"{option}: give a whole path on the cluster; the job's own folder is deleted after it")
    return said, about


def _written(verb: str, words: Sequence[str]) -> list[tuple[str, str | Path | None]]:
    """What the verb writes to, by option, where that may be in the folder that it runs in."""
    from rayrlhf.cli import dataset, export, plot

    if verb == "export":
        return [("--to", parse(export.ExportOptions, words, verb).to)]
    if verb == "plot" and (out := parse(plot.PlotOptions, words, verb).out) is not None:
        return [("--out", out)]
    if verb == "dataset" and words[:1] == ["export"]:
        return [("FILE", parse(dataset.ExportOptions, words[1:], "dataset export").file)]
    if verb == "dataset" and words[:1] == ["import"]:
        return [("DATASET", parse(dataset.ImportOptions, words[1:], "dataset import").dataset)]
    return []


def _train(words: Sequence[str], *, look: bool) -> tuple[list[str], dict[str, str]]:
    """What to add to a `train` so that its run outlives the job's copy of the working folder, and what to say of it."""
    from rayrlhf.cli.train import AUTO, TrainOptions, split_overrides
    from rayrlhf.config.load import load_config

    own, overrides = split_overrides(words)
    options = parse(TrainOptions, own, "train")
    if options.resume not in (None, AUTO):
        if not (Path(options.resume).is_absolute() or is_url(options.resume)):
            raise UserError(f"--resume {options.resume}: give the whole path of the run on the cluster")
        return [], {"config": options.resume}
    if options.config is None:
        raise UserError("which config? `-- train CONFIG ...` takes a preset's name or a YAML file")
    if not look:
        return [], {"config": options.config}
    config = load_config(options.config, overrides)
    if config.asks_people and config.people.url is None:
        raise UserError(
            "nobody would reach the page of a job: run the queue where people do (docs/queue.md), and give --people.url"
        )
    about = {"config": options.config, **({"run": config.name} if config.name else {})}
    saved = _lasting("--explore.save", config.explore.save) if config.explore.save else []
    return _lasting("--storage_path", config.storage_path) + saved, about


def _tune(words: Sequence[str], *, look: bool) -> tuple[list[str], dict[str, str]]:
    """The same of a `tune`, whose trials may be on any node: what several nodes share is for the file to say."""
    from rayrlhf.cli.tune import TuneOptions
    from rayrlhf.tuning.options import load_search
    from rayrlhf.tuning.space import check_space

    options = parse(TuneOptions, words, "tune")
    if not look or (options.resume and not options.file.exists()):  # a search's folder, on the cluster
        return [], {"config": str(options.file)}
    search = load_search(options.file, name=options.name, storage=options.storage)
    check_space(search)
    return _lasting("--storage", search.storage), {"config": str(options.file), "run": search.name}


def _lasting(option: str, folder: str) -> list[str]:
    """An option for where results go, if `folder` were in the job's copy of the working folder, which Ray deletes.

    Then it is in the home folder on the node that the driver is on.
    """
    if Path(folder).is_absolute() or is_url(folder):
        return []
    return [f'{option}="$HOME"/{shlex.quote(folder)}']


def _parse_as(verb: str, words: Sequence[str]) -> None:
    from rayrlhf.cli.bench import BenchOptions
    from rayrlhf.cli.evaluate import EvalOptions

    kinds: dict[str, type] = {"eval": EvalOptions, "bench": BenchOptions}
    parse(kinds[verb], words, verb)


def _pairs(words: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise UserError(f"--{option} {word!r} is not NAME=VALUE")
        found[name] = value
    return found


def _amount(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--entrypoint-resources: {name} is {text!r}, wanted a number") from None


def _requirements() -> list[str]:
    """What this rayrlhf requires, extras left out."""
    try:
        found = importlib.metadata.requires("rayrlhf") or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError("--pip wants an installed rayrlhf, which says what it requires") from None
    return [line for line in found if "extra ==" not in line]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _failed(line: str, result: Mapping[str, str], options: SubmitOptions) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"rayrlhf: {line}\n")
    finish({**result, "error": line}, as_json=options.json)
    return _FAILED

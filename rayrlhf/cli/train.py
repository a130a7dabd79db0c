"""`rayrlhf train`: one run from config to table, plot and video."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rayrlhf.cli.keys import keys_help
from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say, show
from rayrlhf.cli.report import result_rows
from rayrlhf.config.load import load_config, preset_names, preset_summary
from rayrlhf.config.protocol import protocol
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.files import is_url
from rayrlhf.tracking import RunDirectory, work_folder

if TYPE_CHECKING:
    from rayrlhf.training import OpenQueue


AUTO = "auto"


@dataclass(frozen=True)
class TrainOptions:
    """Train a policy. Every option of the run is set as `--group.key value`; they are listed below."""

    config: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")] = None
    """A preset's name, a YAML file, or the folder of a run to repeat."""
    resume: str | None = None
    """Go on with the run in this folder, or at this URL, from its last checkpoint. With `auto`, CONFIG and --name: go
    on with the run of that name, or begin it, so that one command serves a job that is started again."""
    quiet: bool = False
    """No progress line."""
    json: bool = False
    """Print the summary as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf train ARGS`."""
    own, overrides = split_overrides(args)
    if {"-h", "--help"} & set(own):
        return _help(own, overrides)
    options = parse(TrainOptions, own, "train")
    config = _config(options, overrides)
    # imported here, so that help and a mistake in the config come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.remote import begun
    from rayrlhf.training import train

    with one_line():
        people = _queue() if config.asks_people else None
        resume = begun(config) if options.resume == AUTO else options.resume
        summary = train(config, resume=resume, progress=not options.quiet, people=people)
        place = work_folder(config, summary["name"]) if resume is None or is_url(resume) else Path(resume)
        _report(config, summary, RunDirectory.open(place))
    finish(summary, as_json=options.json)
    return 0


def _queue() -> "OpenQueue":
    from rayrlhf.serving.labelling import queue_of_run  # Ray Serve takes a second to load

    return partial(queue_of_run, tell=say)


def split_overrides(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts the words of the verb itself from those that set options of the run (`--a.b value`, `a.b=value`)."""
    own: list[str] = []
    overrides: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        name = word.partition("=")[0]
        if name == "--resume":
            own += [word] if "=" in word else [word, *words[:1]]
            words = words if "=" in word else words[1:]
        elif name in ("-h", "--help", "--json", "--quiet"):
            own.append(word)
        elif word.startswith("--"):
            overrides.append(word)
            if "=" not in word and words and not words[0].startswith("--"):
                overrides.append(words.pop(0))
        else:
            (overrides if "=" in word else own).append(word)
    return own, overrides


def _config(options: TrainOptions, overrides: Sequence[str]) -> RunConfig:
    if options.config is not None:
        return load_config(options.config, overrides)
    if options.resume in (None, AUTO):
        raise UserError(f"which config? A preset ({', '.join(preset_names())}), a YAML file, or --resume RUN")
    if not is_url(options.resume):
        return load_config(str(RunDirectory.open(options.resume).config_file), overrides)
    from rayrlhf.preferences.storage import parent
    from rayrlhf.remote import local

    folder = local(options.resume, with_checkpoint=False)
    of_this_machine = f"work_path={RunConfig().work_path}"
    return load_config(str(folder), [of_this_machine, *overrides, f"storage_path={parent(options.resume)[0]}"])


def _report(config: RunConfig, summary: dict[str, Any], directory: RunDirectory) -> None:
    """The table, the plot and the video of a run that has ended, and where they are."""
    from rayrlhf.evaluating import film_run
    from rayrlhf.plotting import plot_runs

    show(directory.name, ("", ""), result_rows(summary, protocol(config)))
    try:
        film_run(directory)
    except UserError as error:
        say(f"{'video':<8}none: {error}")
    pictures = plot_runs([directory.path])
    for name, paths in (("plot", pictures), ("video", sorted(directory.videos.glob("*.mp4")))):
        for path in paths:
            say(f"{name:<8}{path}")
    say(f"{'run':<8}{directory.path}")
    if is_url(config.storage_path):
        from rayrlhf.remote import Objects, copy_pictures

        objects = Objects(config.storage_path).below(directory.name)
        try:
            copy_pictures(directory, objects)
            say(f"{'at':<8}{objects.url}")
        except UserError as error:
            say(f"{'at':<8}{objects.url}, without plot and video: {error}")


def _help(own: Sequence[str], overrides: Sequence[str]) -> int:
    presets = "\n".join(f"  {name:<18}{preset_summary(name)}" for name in preset_names())
    named = [word for word in own if not word.startswith("-")]
    config = load_config(named[0], overrides) if named else RunConfig()
    try:
        parse(TrainOptions, ["--help"], "train")
    except SystemExit:
        say(f"\npresets\n{presets}\n\n{keys_help(config, named[0] if named else 'the defaults')}")
    return 0

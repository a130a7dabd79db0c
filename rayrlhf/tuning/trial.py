"""One trial: a run with a folder of its own, trained where Tune puts it.

Its folder is the truth about it. A trial that begins again goes on from the newest checkpoint there, whichever Tune
knew of; one that has ended is not repeated. What Tune keeps as a trial's checkpoint only names one of these: that of
another trial where population based training has this one go on from there.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import Damaged, read_json
from rayrlhf.config import RunConfig
from rayrlhf.config.load import overridden, save_config
from rayrlhf.errors import UserError
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train
from rayrlhf.tuning.options import SearchConfig
from rayrlhf.tuning.results import FINISHED, folder_name, result_of
from rayrlhf.tuning.space import Drawn, probes, run_of, settings

FREE_SECONDS = 60.0
"""How long the process that had a trial's folder before has to end."""
_ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """A trial's folder and the name of a checkpoint in it."""

    trial: str
    checkpoint: str


def run_trial(drawn: Drawn, *, search: SearchConfig, command: Sequence[str]) -> None:
    """Trains, or goes on with, the trial that Tune has this process carry out. `command` began the search."""
    sys.argv[:] = command  # what manifests tell, instead of how Ray starts its processes
    name = folder_name(tune.get_context().get_trial_id())
    config = config_of_trial(search, drawn, name)
    run = RunDirectory(search.folder / name)
    origin = _handed_over()
    if run.path.is_dir():
        _wait_until_free(run)
    if origin is not None and origin.trial != name:
        fork(RunDirectory.open(search.folder / origin.trial), origin, config)
    summary = run.summary()
    if summary is None:
        resume = run.path if run.config_file.is_file() else None
        try:
            summary = train(config, resume=resume, progress=False, listener=lambda row: _tell(search, run, row))
        except KeyboardInterrupt:
            raise SystemExit(0) from None  # how a trial of Tune's ends before its time
    tune.report({**result_of(search, summary), FINISHED: True})


def config_of_trial(search: SearchConfig, drawn: Drawn, name: str) -> RunConfig:
    """The config of the trial in the folder `name`."""
    return overridden(run_of(search, drawn), {"name": name, "storage_path": str(search.folder)})


def check_forks(search: SearchConfig) -> None:
    """Under population based training a trial goes on from another's checkpoint, which must fit its options."""
    if search.scheduler.pbt is None:
        return
    fits = checkpoint.made_for(search.run)
    for name, entry in search.search.items():
        for number in probes(entry):
            for option, value in settings(search, {name: number}).items():
                if checkpoint.made_for(overridden(search.run, {option: value})) != fits:
                    raise UserError(
                        f"search.{name}: under the scheduler pbt {option} cannot be searched, since trials go on from "
                        "one another's checkpoints, which it would not fit"
                    )


def fork(donor: RunDirectory, origin: Origin, config: RunConfig) -> RunDirectory:
    """Has the trial of `config` go on from another's checkpoint: its networks, replay, reward model, labels and rows.

    The folder is made beside the trial's and then takes its place; what the trial had asked and measured until then
    stays in it, under `former/`. A fork that was made already, as a resume may ask for it again, is left as it is.
    """
    run = RunDirectory(Path(config.storage_path) / str(config.name))
    aside, old = (run.path.with_name(f".{run.name}.{what}") for what in ("fork", "old"))
    if old.exists() and not run.path.exists():  # a crash between the two renames below
        old.rename(run.path)
    if run.path.is_dir() and _is_forked(run, origin, config):
        return run
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    forked = RunDirectory.create(overridden(config, {"name": aside.name}))
    save_config(config, forked.config_file)
    place, progress = _copy_newest(donor, origin, forked)
    log = PreferenceDataset(forked.preferences)
    for queries, answers in PreferenceDataset(donor.preferences).read():
        if queries.session < progress["sessions"]:
            log.append(queries, answers)
    shutil.copy2(donor.metrics_file, forked.metrics_file)
    forked.cut_metrics(progress["env_steps"])
    if run.path.is_dir():
        _keep_former(run, forked)
    told = {"trial": donor.name, "asked": origin.checkpoint, "checkpoint": place.name}
    forked.note_fork({**told, "env_steps": progress["env_steps"]})
    if run.path.is_dir():
        run.path.rename(old)
    aside.rename(run.path)
    shutil.rmtree(old, ignore_errors=True)
    return run


def _is_forked(run: RunDirectory, origin: Origin, config: RunConfig) -> bool:
    last = run.forks()[-1:]
    return run.config() == config and [(fork["trial"], fork["asked"]) for fork in last] == [
        (origin.trial, origin.checkpoint)
    ]


def _copy_newest(donor: RunDirectory, origin: Origin, forked: RunDirectory) -> tuple[Path, dict[str, Any]]:
    """Copies the checkpoint that is meant or, where training has deleted it, the newest; where, and its counters."""
    meant = donor.checkpoints / origin.checkpoint
    tried: set[Path] = set()
    while True:
        there = [place for place in (meant, *checkpoint.by_age(donor.checkpoints)) if place.is_dir()]
        untried = [place for place in there if place not in tried]
        if not untried:
            raise UserError(f"{donor.path} has no whole checkpoint to go on from")
        try:
            place = checkpoint.copy(untried[0], forked.checkpoints)
            return place, read_json(place / checkpoint.MANIFEST)["progress"]
        except Damaged:
            tried.add(untried[0])
            shutil.rmtree(forked.checkpoints / untried[0].name, ignore_errors=True)


def _keep_former(run: RunDirectory, forked: RunDirectory) -> None:
    """What the trial was until now; its checkpoints are not wanted any more."""
    for file, place in ((run.manifest_file, forked.manifest_file), (run.events_file, forked.events_file)):
        if file.is_file():
            shutil.copy2(file, place)
    former = forked.path / "former"
    if (run.path / "former").is_dir():
        shutil.copytree(run.path / "former", former)
    place = former / f"{len(run.forks()):03d}"
    shutil.copytree(run.preferences, place / "preferences")
    for file in (run.config_file, run.metrics_file):
        if file.is_file():
            shutil.copy2(file, place / file.name)


def _handed_over() -> Origin | None:
    """What Tune has the trial go on from; none at its first start."""
    given = tune.get_checkpoint()
    if given is None:
        return None
    with given.as_directory() as folder:
        return Origin(**json.loads((Path(folder) / _ORIGIN).read_text()))


def _tell(search: SearchConfig, run: RunDirectory, row: dict[str, float]) -> None:
    """Reports an evaluation with the checkpoint of the same moment. KeyboardInterrupt where the trial is to end."""
    newest = checkpoint.by_age(run.checkpoints)[0]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _ORIGIN).write_text(json.dumps({"trial": run.name, "checkpoint": newest.name}))
        try:
            tune.report(result_of(search, row), checkpoint=tune.Checkpoint.from_directory(folder))
        except SystemExit:
            raise KeyboardInterrupt("by the scheduler, or a rule of the search") from None


def _wait_until_free(run: RunDirectory) -> None:
    """The process that had the trial before may still be ending."""
    end = time.monotonic() + FREE_SECONDS
    while True:
        try:
            with run.held():
                return
        except UserError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)

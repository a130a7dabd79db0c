"""`rayrlhf fit`: a reward model from a dataset alone."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rayrlhf.cli.dataset import existing
from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say, show
from rayrlhf.config.load import load_config, overridden, parse_overrides
from rayrlhf.config.schema import EnvOptions, RewardOptions, RunConfig
from rayrlhf.errors import UserError

if TYPE_CHECKING:
    from rayrlhf.fitting.fit import Epoch, Fitted
    from rayrlhf.fitting.labelled import Labelled
    from rayrlhf.fitting.split import Split

_OF_RUNS = {
    "epochs": "--epochs is how many passes there are at most",
    "target_accuracy": "--patience ends the fit, by held-out labels",
    "unlabelled": "a dataset has no other episodes",
    "pretrain_epochs": "nothing was explored",
    "meta_interval": "there is no critic",
    "from": "the model starts from nothing",
    "few_shot": "the model starts from nothing",
    "warm_start": "the model starts from nothing",
    "adaptation": "the model starts from nothing",
    "unlabelled_weight": "a dataset has no other episodes",
    "unlabelled_confidence": "a dataset has no other episodes",
    "meta_weight": "there is no critic",
}
"""Options of the reward model that mean something in a run alone, and why."""
_PLAIN_SECONDS = 5.0


@dataclass(frozen=True)
class FitOptions:
    """Fit a reward model to the answers of a dataset: no environment, no Ray.

    Every option of the reward model is set as `--reward.key value`, such as `--reward.members 5`.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """A run's folder, a folder of preferences, or its URI."""
    out: str | None = None
    """Folder to write; by default reward_models/NAME, by the dataset's name."""
    config: str | None = None
    """A preset's name or a YAML file whose options of the reward model are the defaults here."""
    held_out: float = 0.2
    """Share of the labels that the model is tested on, and never learns; 0: none, and nothing ends the fit early."""
    split: Literal["auto", "episodes", "questions"] = "auto"
    """What is held out: `questions`; `episodes`, leaving out questions that show one of either side; or `auto`: whole
    groups of episodes that questions link, where these are small enough, else questions."""
    encoder: str | None = None
    """Read instructions, too: what turns them into numbers, which observations then end with, as `env.encoder` of a
    run; none: they are not read."""
    instruction_width: int = EnvOptions().instruction_width
    """How many numbers, as `env.instruction_width`."""
    epochs: int = 200
    """Passes over the training labels at most."""
    patience: int = 10
    """Passes that need not be better than the best one, by held-out likelihood, before the fit ends."""
    seed: int = 0
    """The split, the networks' start and all shuffles follow from it."""
    device: str = "cpu"
    """Where it computes: `cpu` or `cuda`."""
    overwrite: bool = False
    """Replace the model in the folder."""
    quiet: bool = False
    """No progress."""
    json: bool = False
    """Print one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf fit ARGS`."""
    own, overrides = parted(args)
    options = parse(FitOptions, own, "fit")
    _check(options)
    reward_options(options.config, overrides, None)
    # imported here, so that help and a mistake in the options come at once
    from rayrlhf.fitting.card import HEAD, require_free, rows

    out = Path(options.out or _default_out(options.dataset))
    require_free(out, overwrite=options.overwrite)
    report, interrupted = _fit(options, overrides, out, shlex.join(["rayrlhf", "fit", *args]))
    show(str(out), HEAD, rows(report), right=(1, 2, 3, 4))
    say(f"split   {report['split']}")
    say(
        f"epochs  {report['epochs']}, the weights are those of epoch {report['best_epoch']}; ended by {report['ended']}"
    )
    if interrupted:
        raise KeyboardInterrupt(f"stopped; the best so far is in {out}")
    finish({"out": str(out), **report}, as_json=options.json)
    return 0


def _fit(options: FitOptions, overrides: Sequence[str], out: Path, command: str) -> tuple[dict[str, Any], bool]:
    """Fits and writes the model; what there is to say of it, and whether Ctrl-C ended it."""
    from rayrlhf.fitting.card import write_model
    from rayrlhf.fitting.fit import fit_labels
    from rayrlhf.fitting.labelled import read_labels, with_words
    from rayrlhf.fitting.split import split
    from rayrlhf.rewards.networks import make_network
    from rayrlhf.rewards.stored import PAIRS, RewardModel

    data = read_labels(existing(options.dataset))
    if options.encoder is not None:
        data = with_words(data, options.encoder, options.instruction_width, options.dataset)
    reward = reward_options(options.config, overrides, data.labels.left.length)
    widths = data.labels.left.obs.shape[2], data.labels.left.action.shape[2]
    make_network(reward, *widths)  # refuses what cannot be, in one line
    share, seed = options.held_out, options.seed
    parts = split(data.episodes, data.same, share, options.split, seed) if share else None
    try:
        fitted = fit_labels(
            data,
            parts,
            reward,
            seed=seed,
            most=options.epochs,
            patience=options.patience,
            device=options.device,
            tell=_Line(options),
        )
    except FloatingPointError as error:
        raise UserError(f"the fit diverged: {error}; lower --reward.lr, which is {reward.lr:g}") from error
    report = _report(options, command, data, parts, fitted)
    facts = {name: report[name] for name in ("dataset", "labels", "split", "segment_length", "seed")}
    if options.encoder is not None:
        facts |= {"encoder": options.encoder, "instruction_width": options.instruction_width}
    facts[PAIRS] = sorted(set(data.pairs))
    write_model(out, RewardModel(reward, *widths, fitted.weights, facts), report)
    return report, fitted.interrupted


def parted(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the verb itself, and those that set options of the reward model."""
    own: list[str] = []
    overrides: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        target = overrides if word.removeprefix("--").startswith("reward.") else own
        target.append(word)
        if target is overrides and "=" not in word and words and not words[0].startswith("--"):
            target.append(words.pop(0))
    return own, overrides


def _check(options: FitOptions) -> None:
    if not 0.0 <= options.held_out < 1.0:
        raise UserError(f"--held-out is {options.held_out:g}, wanted a share from 0 to below 1")
    for name in ("epochs", "patience", "instruction_width"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}, wanted 1 or more")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}, wanted 0 or more")
    if options.device != "cpu":
        import torch

        if options.device != "cuda" or not torch.cuda.is_available():
            raise UserError(f"--device is {options.device!r}, wanted cpu, or cuda where there is a GPU")


def reward_options(config: str | None, overrides: Sequence[str], steps: int | None) -> RewardOptions:
    """The reward model's options: a config's, or the defaults, and overrides; for segments of `steps`, once known."""
    values = dict(parse_overrides(overrides))
    for key in values:
        if why := _OF_RUNS.get(key.removeprefix("reward.")):
            raise UserError(f"{key} is for runs: {why}")
    base = RunConfig() if config is None else load_config(config)
    of_runs: dict[str, Any] = {
        "reward.unlabelled": 0,
        "reward.pretrain_epochs": 0,
        "reward.meta_interval": None,
        "reward.from": None,
        "reward.few_shot": None,
    }
    if steps is not None:
        of_runs |= {"queries.segment_length": steps, "env.horizon": None, "sac.recent_share": 0.0}
    return overridden(base, of_runs | values).reward


def _default_out(dataset: str) -> str:
    name = PurePosixPath(dataset.partition("?")[0].rstrip("/")).name
    return f"reward_models/{name or 'model'}"


def _report(
    options: FitOptions, command: str, data: "Labelled", parts: "Split | None", fitted: "Fitted"
) -> dict[str, Any]:
    nothing = "none: nothing was held out, so how well it predicts what it has not seen is not known"
    return {
        "dataset": options.dataset,
        "labels": len(data.labels),
        "questions": data.questions,
        "segment_length": data.labels.left.length,
        "split": nothing if parts is None else parts.words,
        "dropped": 0 if parts is None else parts.dropped,
        "training": fitted.training,
        "held_out": fitted.held_out,
        "epochs": len(fitted.epochs),
        "best_epoch": fitted.best,
        "ended": fitted.ended,
        "seed": options.seed,
        "command": command,
    }


class _Line:
    """The progress of a fit: redrawn on a terminal, a line every few seconds elsewhere."""

    def __init__(self, options: FitOptions) -> None:
        self._most, self._quiet = options.epochs, options.quiet
        self._terminal = sys.stderr.isatty()
        self._told = time.monotonic()

    def __call__(self, epoch: "Epoch") -> None:
        held_out = "" if epoch.held_out is None else f"  held-out likelihood {epoch.held_out:.3f}"
        text = f"epoch {epoch.number}/{self._most}  loss {epoch.loss:.3f}  accuracy {epoch.accuracy:.1%}{held_out}"
        if self._quiet or not (self._terminal or time.monotonic() - self._told >= _PLAIN_SECONDS):
            return
        self._told = time.monotonic()
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

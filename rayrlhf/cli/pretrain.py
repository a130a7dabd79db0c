"""`rayrlhf pretrain`: weights from many tasks, from which few labels of a new one lead far."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rayrlhf.cli.dataset import existing
from rayrlhf.cli.fit import parted, reward_options
from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, show
from rayrlhf.config.load import parse_overrides
from rayrlhf.config.meta import MetaOptions
from rayrlhf.config.schema import RewardOptions
from rayrlhf.errors import UserError

if TYPE_CHECKING:
    from rayrlhf.rewards.pretraining import Look

_OF_WEIGHTS = {"members", "network", "hidden", "output", "normalize_inputs"}
"""Options of the reward model that say what its weights are."""


@dataclass(frozen=True)
class PretrainOptions:
    """Few-shot pre-training (MAML on preferences, arXiv 2212.03363) over the draws of a dataset, each a task.

    `rayrlhf dataset generate` makes such data. Options of the reward model are set as `--reward.key value`.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """A folder of preferences, or its URI; each session of it is a task."""
    out: str = "reward_models/few_shot"
    """Folder to write."""
    config: str | None = None
    """A preset's name or a YAML file whose options of the reward model are the defaults here."""
    meta: Annotated[MetaOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=MetaOptions)
    """The learning over tasks."""
    devices: str = "cpu"
    """Where it computes: `cpu`, `cuda`, or several with commas, which share the tasks of a step: `cuda:0,cuda:1`."""
    overwrite: bool = False
    """Replace what is in the folder."""
    quiet: bool = False
    """No progress."""
    json: bool = False
    """Print one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf pretrain ARGS`."""
    own, overrides = parted(args)
    for key, _ in parse_overrides(overrides):
        if key.removeprefix("reward.") in set(RewardOptions.model_fields) - _OF_WEIGHTS:
            raise UserError(f"{key} is for fits: of the reward model here {', '.join(sorted(_OF_WEIGHTS))} count")
    options = parse(PretrainOptions, own, "pretrain")
    reward = reward_options(options.config, overrides, None)
    # imported here, so that help and a mistake in the options come at once
    from rayrlhf.fitting.card import require_free, write_folder
    from rayrlhf.fitting.tasks import few_shot_page, labels_by_session
    from rayrlhf.rewards.pretraining import Pretraining
    from rayrlhf.rewards.stored import RewardModel

    out = Path(options.out)
    require_free(out, overwrite=options.overwrite)
    tasks = labels_by_session(existing(options.dataset))
    training = Pretraining(tasks, reward, options.meta, _devices(options.devices))
    weights, looks = training.run(lambda look: _tell(look, options))
    best = min(looks, key=lambda look: look.loss)
    report = {
        "dataset": options.dataset,
        "tasks": len(training.training),
        "held_out_tasks": len(training.held_out),
        "labels": sum(map(len, tasks)),
        "step": best.step,
        "accuracy_before": best.before,
        "accuracy": best.accuracy,
        "untrained_accuracy": looks[0].accuracy,
        "looks": [vars(look) | {"training": None if look.step == 0 else look.training} for look in looks],
        "command": shlex.join(["rayrlhf", "pretrain", *args]),
    }
    model = RewardModel(reward, training.obs_dim, training.action_dim, weights, {"few_shot": report["dataset"]})
    write_folder(out, model, report, few_shot_page(report, reward, options.meta))
    show(str(out), ("", ""), _rows(report))
    finish({"out": str(out), **report}, as_json=options.json)
    return 0


def _devices(text: str) -> list[str]:
    import torch

    devices = [part.strip() for part in text.split(",")]
    for device in devices:
        kind, _, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise UserError(f"--devices has {device!r}, wanted cpu, cuda, or cuda:0,cuda:1")
        if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
            raise UserError(f"--devices has {device!r}, and this machine has {torch.cuda.device_count()} GPUs")
    return devices


def _tell(look: "Look", options: PretrainOptions) -> None:
    if not options.quiet:
        told = f"step {look.step:,}/{options.meta.steps:,}  held-out tasks: loss {look.loss:.3f}"
        line = f"{told}, accuracy {look.before:.1%} before their labels, {look.accuracy:.1%} after\n"
        sys.stderr.write(line)
        sys.stderr.flush()


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("tasks", f"{report['tasks']:,}, and {report['held_out_tasks']:,} held out"),
        ("outer steps", f"{report['step']:,}, the best of {report['looks'][-1]['step']:,}"),
        ("accuracy", f"{report['accuracy']:.1%} on held-out tasks after their labels"),
        ("", f"{report['accuracy_before']:.1%} before, {report['untrained_accuracy']:.1%} untrained, after the same"),
    ]

"""`rayrlhf eval`: how good a run's policy is."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say, show
from rayrlhf.cli.report import alignment_rows, result_rows
from rayrlhf.config.protocol import protocol
from rayrlhf.errors import UserError
from rayrlhf.files import is_url
from rayrlhf.tracking import RunDirectory


@dataclass(frozen=True)
class EvalOptions:
    """Evaluate the deterministic policy of a run or checkpoint, in environments of its own."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|CHECKPOINT")]
    """Folder or URL of a run (its last checkpoint) or of one checkpoint."""
    episodes: int = 50
    """Episodes to evaluate over."""
    video: bool = False
    """Film some of them."""
    held_out_wordings: bool = False
    """Tell a policy that takes instructions what to do in words that no run trains with."""
    render: Literal["none", "human"] = "none"
    """`human` opens a window and shows them as they run."""
    answers: str | None = None
    """Compare policy and reward model with answers they were not trained on: another run's folder, a dataset's, or a
    Parquet or JSON lines file."""
    alignment: bool = False
    """Compare the reward model with the true reward; --answers does so, too."""
    json: bool = False
    """Print the result as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf eval ARGS`."""
    options = parse(EvalOptions, args, "eval")
    if options.episodes <= 0:
        raise UserError(f"--episodes is {options.episodes}, wanted a whole number above 0")
    if not (is_url(options.target) or Path(options.target).is_dir()):
        raise UserError(f"there is no run or checkpoint {options.target!r}")
    if options.render == "human" and not has_display():
        raise UserError("--render human needs a display, and there is none; --video writes a file instead")
    # imported here, so that help and mistakes come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.evaluating import evaluate
    from rayrlhf.remote import local

    show_window = options.render == "human"
    with one_line():
        target = local(options.target)
        found = _aligned(target, options)
        result = evaluate(
            target,
            episodes=options.episodes,
            video=options.video,
            render=show_window,
            held_out_wordings=options.held_out_wordings,
        )
    how = protocol(RunDirectory.open(run_of(target)).config())
    show(options.target, ("", ""), result_rows(result, how) + alignment_rows(found))
    if options.video:
        say(f"{'video':<8}{result['video']}")
    finish({**result, **({"alignment": found} if found else {})}, as_json=options.json)
    return 0


def _aligned(target: Path, options: EvalOptions) -> dict[str, Any]:
    """Before the episodes: what is wrong with the answers is told at once."""
    if options.answers is None and not options.alignment:
        return {}
    from rayrlhf.aligning import align

    return align(target, answers=options.answers)


def run_of(target: Path) -> Path:
    """The folder of the run that `target`, a run or one of its checkpoints, belongs to."""
    for folder in (target, *target.resolve().parents):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"{str(target)!r} belongs to no run: no config.yaml in it or above it")


def has_display() -> bool:
    """Whether a window can be opened."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))

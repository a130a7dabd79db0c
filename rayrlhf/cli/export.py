"""`rayrlhf export`: a run's policy as a file for programs that know nothing of this one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say
from rayrlhf.errors import UserError


@dataclass(frozen=True)
class ExportOptions:
    """Write the deterministic policy of a run or checkpoint: observations in, the simulator's own actions out."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|CHECKPOINT")]
    """Folder or URL of a run (its last checkpoint) or of one checkpoint."""
    format: Literal["onnx", "torchscript"] = "onnx"
    """`onnx` (extra `onnx`), or `torchscript` for torch.jit.load."""
    to: Path | None = None
    """The file; by default TASK-VERSION.onnx or .pt here."""
    overwrite: bool = False
    """Replace a file that is there."""
    json: bool = False
    """Print the result as one JSON object, as the last line."""


def run(args: Sequence[str]) -> int:
    """Carries out `rayrlhf export ARGS`."""
    options = parse(ExportOptions, args, "export")
    # imported here, so that help and mistakes come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.files import write_atomically
    from rayrlhf.policies.export import ENDINGS, WRITERS
    from rayrlhf.remote import local
    from rayrlhf.trained import load_chosen

    with one_line():
        trained = load_chosen(local(options.target))
        card = trained.card()
        default = f"{trained.name}-{trained.version}{ENDINGS[options.format]}"
        file = Path(default) if options.to is None else options.to
        if file.is_dir():
            raise UserError(f"{file} is a folder: name a file, such as {file / default}")
        if file.exists() and not options.overwrite:
            raise UserError(f"{file} exists: choose another --to, or give --overwrite")
        if trained.vocabulary is not None:
            card["instruction_vectors"] = {said: row.tolist() for said, row in trained.vocabulary.own.items()}
        write_atomically(file, WRITERS[options.format](trained.deployed(), trained.spec.obs_dim, card))
    say(f"{file}: {card['task']}, version {card['version']}")
    finish({"file": str(file), **card}, as_json=options.json)
    return 0

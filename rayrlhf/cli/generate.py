"""`rayrlhf dataset generate`: preferences over many tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say
from rayrlhf.config.recipe import Recipe


@dataclass(frozen=True)
class GenerateOptions:
    """Make preferences over many MetaWorld tasks, by scripted experts and a teacher; the same command goes on."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """A folder of its own, made if it is not there."""
    recipe: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = field(default_factory=Recipe)
    """What is made."""
    json: bool = False
    """Print one JSON object, as the last line."""


def run(args: Sequence[str]) -> None:
    """Carries out `rayrlhf dataset generate ARGS`."""
    options = parse(GenerateOptions, args, "dataset generate")
    # imported here, so that help and mistakes come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.generating import generate

    with one_line():
        made = generate(options.recipe, options.dataset, say)
    tasks = len(made["tasks"])
    say(f"{made['questions']:,} questions about {made['draws']} draws of {tasks} tasks in {options.dataset}")
    finish(made, as_json=options.json)

"""`rayrlhf dataset generate`: preferences over many tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from rayrlhf.cli.options import parse
from rayrlhf.cli.output import finish, say


@dataclass(frozen=True)
class GenerateOptions:
    """Make preferences over many MetaWorld tasks, by scripted experts and a teacher; the same command goes on."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """A folder of its own, made if it is not there."""
    tasks: str = "ml10-train"
    """One, several with commas between them, or a set: mt10, ml10-train, ml10-test."""
    without: str = ""
    """Tasks to leave out of these, such as those to be learnt later."""
    draws: int = 25
    """Of objects and goal, of each task."""
    expert: int = 15
    """Episodes of the task's own scripted expert in each draw."""
    within: int = 25
    """Of its expert for another draw."""
    cross: int = 10
    """Of the expert of another of the tasks."""
    random: int = 2
    """Of random actions."""
    noise: float = 0.1
    """Deviation of the noise on the experts' actions."""
    pairs: int = 1000
    """Questions about each draw."""
    segment_length: int = 25
    """Steps of the clips."""
    horizon: int = 500
    """Steps after which an episode ends, if nobody has succeeded."""
    show_goal: bool = False
    """Leave the goal in the observations."""
    teacher: str = "oracle"
    """A scripted one."""
    wordings: int = 6
    """Ways to say each instruction, of which every question draws one."""
    seed: int = 0
    """All of it follows from this."""
    json: bool = False
    """Print one JSON object, as the last line."""


def run(args: Sequence[str]) -> None:
    """Carries out `rayrlhf dataset generate ARGS`."""
    options = parse(GenerateOptions, args, "dataset generate")
    # imported here, so that help and mistakes come at once
    from rayrlhf.cli.guard import one_line
    from rayrlhf.envs.experts import Episodes
    from rayrlhf.generating import Recipe, generate

    episodes = Episodes(options.expert, options.within, options.cross, options.random, options.noise)
    recipe = Recipe(
        tasks=options.tasks,
        without=options.without,
        draws=options.draws,
        episodes=episodes,
        pairs=options.pairs,
        segment_length=options.segment_length,
        horizon=options.horizon,
        goal_hidden=not options.show_goal,
        teacher=options.teacher,
        wordings=options.wordings,
        seed=options.seed,
    )
    with one_line():
        made = generate(recipe, options.dataset, say)
    tasks = len(made["tasks"])
    say(f"{made['questions']:,} questions about {made['draws']} draws of {tasks} tasks in {options.dataset}")
    finish(made, as_json=options.json)

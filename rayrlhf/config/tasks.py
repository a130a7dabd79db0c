"""Sets of MetaWorld's tasks by name, and how several tasks are written."""

ML10_TRAIN = (
    "reach", "push", "pick-place", "door-open", "drawer-close", "button-press-topdown", "peg-insert-side",
    "window-open", "sweep", "basketball",
)  # fmt: skip
ML10_TEST = ("drawer-open", "door-close", "shelf-place", "sweep-into", "lever-pull")
MT10 = (
    "reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close", "button-press-topdown",
    "peg-insert-side", "window-open", "window-close",
)  # fmt: skip

TASK_SETS = {"ml10-train": ML10_TRAIN, "ml10-test": ML10_TEST, "mt10": MT10}
"""MetaWorld's own (Yu et al. 2019, arXiv 1910.10897, section 4.2; the package's `env_dict`)."""


def tasks_in(text: str) -> tuple[str, ...]:
    """The tasks that `text` names: one, several with commas between them, a set, or a mixture; each once, in order.

    Raises:
        ValueError: it names none, or there is nothing between two commas.
    """
    found: dict[str, None] = {}
    for name in (part.strip() for part in text.split(",")):
        if not name:
            raise ValueError(f"{text!r} names no task, or nothing between two commas")
        found |= dict.fromkeys(TASK_SETS.get(name, (name,)))
    return tuple(found)

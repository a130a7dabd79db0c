"""What a fit writes: a folder with the model, its numbers and a page about it."""

import json
from pathlib import Path
from typing import Any

import rayrlhf
from rayrlhf.errors import UserError, printable
from rayrlhf.files import whole_folder
from rayrlhf.rewards.stored import FILE, RewardModel

METRICS, PAGE = "metrics.json", "README.md"
Report = dict[str, Any]
_CARD = """# Reward model

An ensemble of {members} networks, fitted to preferences by rayrlhf {version}.

- Data: `{dataset}`, {labels:,} labels of {questions:,} questions, segments of {segment_length} steps.
- Input: observations of {obs} numbers, actions of {action}. {words}
- Split: {split}.
- Training: seed {seed}, ended by: {ended}; the weights of epoch {best_epoch} of {epochs} are kept.
- Options that are not the defaults: `{options}`.

## How well it predicts

{table}

Accuracy is over labels that prefer a side. The likelihood is negative, in nats: a coin has 0.693. The calibration error
is the distance of P(right) from what was said, over ten bins, each pair in both orders; with few labels it is too high.
`metrics.json` has more.

## Use

```
{command}
```

made it, and this trains a policy with it, where options and widths agree:

```
rayrlhf train CONFIG --reward.from THIS_FOLDER
```
"""


def write_model(folder: Path, model: RewardModel, report: Report) -> None:
    """Writes `folder`, whole or not at all; a model that was there before is replaced.

    `report` has `dataset`, `labels`, `questions`, `segment_length`, `split`, `training`, `held_out`, `epochs`,
    `best_epoch`, `ended`, `seed` and `command`.
    """
    write_folder(folder, model, report, card(model, report))


def write_folder(folder: Path, model: RewardModel, report: Report, page: str) -> None:
    """A model with numbers and a page about it, whole or not at all."""
    with whole_folder(folder) as aside:
        model.save(aside / FILE)
        (aside / METRICS).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        (aside / PAGE).write_text(page)


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Refuses to put a model where something is, before anything is computed."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} exists: choose another --out, or replace it with --overwrite")
    if folder.exists() and not (folder / FILE).is_file():
        raise UserError(f"{folder} exists and holds no reward model: choose another --out")


def card(model: RewardModel, report: Report) -> str:
    """The page about a model, in Markdown."""
    options = model.options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return _CARD.format(
        members=model.options.members,
        version=rayrlhf.__version__,
        obs=model.obs_dim,
        action=model.action_dim,
        words=_words(model),
        options=_inline(json.dumps(options)),
        table="\n".join(_table(report)),
        **{
            name: _inline(value) if isinstance(value, str) else value
            for name, value in report.items()
            if name not in ("training", "held_out")
        },
    )


def _words(model: RewardModel) -> str:
    encoder, width = model.facts.get("encoder"), model.facts.get("instruction_width")
    if encoder is None:
        return "They are as the dataset has them.\n  An instruction is not read, unless it is part of the observations."
    return (
        f"The last {width} numbers of an\n  observation are its instruction, by the encoder `{_inline(str(encoder))}`; "
        "those before them are as the dataset has them."
    )


def _inline(text: str) -> str:
    """Text of others between backticks: on one line, and without what would end them."""
    return printable(text, 2000).replace("`", "'")


def rows(report: Report) -> list[tuple[str, ...]]:
    """A row for each set of labels: name, labels, accuracy, likelihood, calibration error; by instruction, too."""
    found: list[tuple[str, ...]] = []
    for side in ("training", "held_out"):
        measured = report[side]
        if measured is None:
            continue
        found.append(_row(side.replace("_", "-"), measured))
        for sentence, part in measured.get("by_instruction", {}).items():
            found.append(_row(f"  {printable(sentence) or '(no instruction)'}", part))
    return found


def _row(name: str, measured: Report) -> tuple[str, ...]:
    accuracy = "none" if measured["accuracy"] is None else f"{measured['accuracy']:.1%}"
    numbers = (measured[key] for key in ("negative_log_likelihood", "expected_calibration_error"))
    return (name, f"{measured['labels']:,}", accuracy, *(f"{number:.3f}" for number in numbers))


HEAD = ("labels", "count", "accuracy", "neg. log-likelihood", "calibration error")


def _table(report: Report) -> list[str]:
    lines = [HEAD, ("---",) * len(HEAD), *rows(report)]
    return ["| " + " | ".join(_inline(cell.strip()).replace("|", "\\|") for cell in line) + " |" for line in lines]

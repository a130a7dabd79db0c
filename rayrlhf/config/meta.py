"""Options of few-shot pre-training: model-agnostic meta-learning over the tasks of a dataset."""

from typing import Annotated

from pydantic import Field

from rayrlhf.config.options import NonNegative, Options, Positive, Rate


class MetaOptions(Options):
    """MAML on preferences (Hejna & Sadigh 2022, arXiv 2212.03363); the defaults are the paper's for MetaWorld."""

    support: Positive = 32
    """Labels of a task that the inner steps learn from."""
    query: Positive = 32
    """Labels of the same task that the outcome is judged by."""
    inner_steps: Positive = 2
    """Steps of gradient descent on the support."""
    inner_lr: Rate = 1e-3
    """Their learning rate at the start."""
    learn_inner_lr: bool = True
    """Whether each parameter tensor learns its own."""
    lr: Rate = 1e-4
    """Adam's, of the outer step."""
    tasks: Positive = 4
    """Tasks of an outer step."""
    steps: Positive = 20_000
    """Outer steps at the most."""
    evaluate_every: Positive = 250
    """Outer steps between two looks at the held-out tasks."""
    patience: Positive = 20
    """Looks without anything better after which it ends."""
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the tasks that nothing is learnt from."""
    seed: NonNegative = 0
    """All of it follows from this."""

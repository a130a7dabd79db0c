"""How much an answer to a pair would teach, judged by the members' own opinions of it (B-Pref, section 3.3)."""

import torch
from torch import Tensor


def disagreement(probability: Tensor) -> Tensor:
    """Population standard deviation (ddof 0) over members of P(right preferred).

    Args:
        probability: `[E, N]` each member's P(right preferred) of each pair.

    Returns:
        `[N]`, between 0 and 0.5.
    """
    _check(probability)
    return probability.std(dim=0, correction=0)


def entropy(probability: Tensor) -> Tensor:
    """Mean over members of each member's own binary entropy, in nats; not the entropy of the mean.

    Args:
        probability: `[E, N]` each member's P(right preferred) of each pair.

    Returns:
        `[N]`, between 0 and ln 2.
    """
    _check(probability)
    own: Tensor = torch.special.entr(probability) + torch.special.entr(1.0 - probability)  # [E, N]
    return own.mean(dim=0)


def _check(probability: Tensor) -> None:
    if probability.ndim != 2 or probability.shape[0] == 0:
        raise ValueError(f"probabilities must be [members, pairs], not {list(probability.shape)}")
    if not ((probability >= 0) & (probability <= 1)).all():  # also catches NaN
        raise ValueError("a member's preference probability lies outside [0, 1]")

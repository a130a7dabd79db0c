"""Running mean and variance of a stream of vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and population variance over every row seen so far, whatever the batches were.

    The update is Chan, Golub and LeVeque's (1979): `mean += delta * n / total`. Accumulates in float64, without
    reading anything back from the device. Before the first row `mean` is 0 and `std` 1, so that standardising by
    them changes nothing. Inside a module they are part of its state.
    """

    _count: Tensor
    _mean: Tensor
    _square: Tensor  # sum of squared deviations

    def __init__(self, shape: Sequence[int] = (), *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        for name, size in {"_count": (), "_mean": tuple(shape), "_square": tuple(shape)}.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64, device=device))

    def update(self, x: Tensor) -> None:
        """Takes in the rows of `x` `[B, ...]`; no rows change nothing. Raises ValueError on another row shape."""
        if x.shape[1:] != self._mean.shape:
            raise ValueError(f"rows have shape {tuple(x.shape[1:])}, the moments {tuple(self._mean.shape)}")
        rows = len(x)
        if rows == 0:
            return
        x = x.detach().to(self._mean.device, torch.float64)
        mean = x.mean(0)
        self.merge(rows, mean, (x - mean).square().sum(0))

    def merge(self, rows: float | Tensor, mean: Tensor, square: Tensor) -> None:
        """Takes in `rows` rows, at least one, of this `mean` and sum of squared deviations from it, in float64."""
        delta = mean - self._mean
        total = self._count + rows
        self._square += square + delta.square() * (self._count * rows / total)
        self._mean += delta * (rows / total)
        self._count.copy_(total)

    @property
    def count(self) -> Tensor:
        """Rows seen, a float64 scalar."""
        return self._count

    @property
    def mean(self) -> Tensor:
        """float32, the shape of one row."""
        return self._mean.float()

    @property
    def std(self) -> Tensor:
        """Population standard deviation (ddof 0), float32, the shape of one row; 1 before the first row."""
        std = (self._square / self._count.clamp(min=1.0)).sqrt()
        return torch.where(self._count > 0, std, torch.ones_like(std)).float()

    def state(self) -> dict[str, Tensor]:
        """Copies of everything there is, on the CPU."""
        held = {"count": self._count, "mean": self._mean, "square": self._square}
        return {name: value.detach().cpu().clone() for name, value in held.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores what `state()` gave, bit for bit. Raises KeyError or RuntimeError on a foreign state."""
        self._count.copy_(state["count"])
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])

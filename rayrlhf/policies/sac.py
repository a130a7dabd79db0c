"""One update of soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) with automatic temperature.

Plain torch: the loop, the replay and RLlib are elsewhere. The noise is an argument, so an update is a function of
its inputs and two learners can be compared bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from rayrlhf.config import SacOptions
from rayrlhf.policies.networks import SacNetworks


@dataclass(frozen=True)
class Batch:
    """`B` transitions: obs `[B, O]`, action `[B, A]`, reward `[B]`, next_obs `[B, O]`, terminated `[B]` as 0 or 1.

    discount: `[B]` of the value of `next_obs`; none: gamma. Of several steps `reward` is their discounted sum.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    discount: Tensor | None = None

    def split(self, parts: int) -> "Iterator[Batch]":
        """So many equal parts, in order."""
        if len(self.obs) % parts:
            raise ValueError(f"{len(self.obs)} rows are no {parts} equal parts")
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        columns = {name: column.chunk(parts) for name, column in present.items() if column is not None}
        return (Batch(**{name: column[i] for name, column in columns.items()}) for i in range(parts))


class SacUpdate:
    """Holds the optimisers and performs updates on `networks` in place."""

    MEASURES = ("critic_loss", "actor_loss", "q_value", "entropy", "temperature")
    """What an update returns."""

    def __init__(
        self,
        networks: SacNetworks,
        options: SacOptions,
        *,
        average: Callable[[list[Tensor]], None] | None = None,
        parts: int = 1,
    ) -> None:
        """Makes the optimisers.

        average: replaces tensors by their means over all learners, where several learn together
        parts:   each batch is computed in so many equal parts, one after the other, whose gradients add up
        """
        self.networks = networks
        self._options = options
        self._average, self._parts = average, parts
        wanted = options.target_entropy
        self._target_entropy = -float(networks.action_dim) if wanted is None else wanted
        self.optimizers = {
            "actor": self._adam(networks.actor.parameters(), options.actor_lr),
            "critic": self._adam(networks.critic.parameters(), options.critic_lr),
            "alpha": self._adam([networks.log_alpha], options.alpha_lr),
        }
        self._critic_parameters: list[Tensor] = list(networks.critic.parameters())
        self._target_parameters: list[Tensor] = list(networks.target.parameters())

    def _adam(self, parameters: Iterable[Tensor], lr: float) -> torch.optim.Adam:
        on_gpu = self.networks.log_alpha.is_cuda
        return torch.optim.Adam(
            parameters,
            lr=lr,
            betas=self._options.adam_betas,
            fused=True,
            capturable=on_gpu,
        )

    def __call__(self, batch: Batch, next_noise: Tensor, noise: Tensor, *, move_target: bool) -> dict[str, Tensor]:
        """One update with standard normal `noise` and `next_noise` `[B, A]`; returns `MEASURES`, on the device."""
        critic_loss, value = self._update_critic(batch, next_noise)
        actor_loss, entropy = self._update_actor(batch, noise)
        if move_target:
            with torch.no_grad():
                torch._foreach_lerp_(self._target_parameters, self._critic_parameters, self._options.tau)
        return {
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "q_value": value,
            "entropy": entropy,
            "temperature": self.networks.log_alpha.detach().exp(),
        }

    def _autocast(self) -> torch.autocast:
        enabled = self._options.precision == "bfloat16"
        return torch.autocast(self.networks.log_alpha.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _update_critic(self, batch: Batch, next_noise: Tensor) -> tuple[Tensor, Tensor]:
        self._begin("critic")
        found = []
        for rows, noise in self._split(batch, next_noise):
            loss, goal = self._critic_loss(rows, noise)
            self._add(loss)
            found.append((loss.detach(), goal.mean()))
        self._step("critic")
        return self._means(found)

    def _critic_loss(self, batch: Batch, next_noise: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the values `[B]` that it wants."""
        nets = self.networks
        with self._autocast():
            with torch.no_grad():
                next_action, log_prob = nets.actor.sample(batch.next_obs, next_noise)
                next_value = torch.minimum(*nets.target(batch.next_obs, next_action)) - nets.log_alpha.exp() * log_prob
                discount = self._options.gamma if batch.discount is None else batch.discount
                goal = batch.reward + (1 - batch.terminated) * discount * next_value
            first, second = nets.critic(batch.obs, batch.action)
            return functional.mse_loss(first, goal) + functional.mse_loss(second, goal), goal

    def _update_actor(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        nets = self.networks
        # the critic only carries the gradient to the action here: without its own, a third of the work is saved
        self._require_critic_gradients(False)
        self._begin("actor")
        found = []
        for rows, part in self._split(batch, noise):
            with self._autocast():
                action, log_prob = nets.actor.sample(rows.obs, part)
                alpha = nets.log_alpha.detach().exp()
                loss = (alpha * log_prob - torch.minimum(*nets.critic(rows.obs, action))).mean()
            self._add(loss)
            found.append((loss.detach(), -log_prob.detach().mean()))
        self._step("actor")
        self._require_critic_gradients(True)
        loss, entropy = self._means(found)
        self._begin("alpha")
        (nets.log_alpha.exp() * (entropy - self._target_entropy)).backward()  # type: ignore[no-untyped-call]
        self._step("alpha")
        return loss, entropy

    def _require_critic_gradients(self, wanted: bool) -> None:
        for parameter in self._critic_parameters:  # the module's own method walks all modules first
            parameter.requires_grad_(wanted)

    def _split(self, batch: Batch, noise: Tensor) -> Iterable[tuple[Batch, Tensor]]:
        if self._parts == 1:
            return [(batch, noise)]
        return zip(batch.split(self._parts), noise.chunk(self._parts), strict=True)

    def _means(self, found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        if self._parts == 1:
            return found[0]
        first, second = (torch.stack(values).mean() for values in zip(*found, strict=True))
        return first, second

    def _begin(self, name: str) -> None:
        self.optimizers[name].zero_grad(set_to_none=self._average is None)

    def _add(self, loss: Tensor) -> None:
        (loss if self._parts == 1 else loss / self._parts).backward()  # type: ignore[no-untyped-call]

    def _step(self, name: str) -> None:
        optimizer = self.optimizers[name]
        if self._average is not None:
            self._average([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        optimizer.step()

    def reset(self) -> None:
        """Everything fresh: actor, critic, temperature and what the optimisers remember."""
        self.networks.reset()
        for optimizer in self.optimizers.values():
            optimizer.state.clear()

    def reset_critic(self) -> None:
        """A fresh critic with a fresh optimiser; the actor stays (PEBBLE, section 4.2)."""
        self.networks.reset_critic()
        self.optimizers["critic"].state.clear()

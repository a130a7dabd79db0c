"""The members one process holds: made, scored in chunks, written to and read from flat dictionaries."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.fragments import Floats
from rayrlhf.rewards.blocks import Block, make_blocks
from rayrlhf.rewards.networks import MLPReward, make_network
from rayrlhf.rewards.plan import Plan, Workspace, choose_plan
from rayrlhf.rewards.threads import Threads
from rayrlhf.seeding import integer_seed

Arrays = dict[str, NDArray[np.generic]]
"""What crosses process borders and goes into files: flat, named, no pickle."""

MIN_STD = 1e-4
"""Observations that moved less than this over all labels are centred, not scaled: goal-hidden zeros stay zeros."""


def as_tensor(array: Tensor | Floats, device: torch.device) -> Tensor:
    """float32 on `device`, without a copy where possible (arrays from Ray are read-only: those are copied)."""
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()
    return torch.as_tensor(array, dtype=torch.float32, device=device)


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """`make()` under its own random stream on the CPU; the caller's stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def member_networks(
    options: RewardOptions,
    obs_dim: int,
    action_dim: int,
    members: Sequence[int] | None = None,
    stream: Sequence[str | int] = ("init",),
    *,
    seed: int,
) -> list[nn.Module]:
    """A network for each of `members` (none: all), drawn from a `stream` of its own."""
    make = partial(make_network, options, obs_dim, action_dim)
    chosen = range(options.members) if members is None else members
    seeds = [integer_seed(seed, "reward", m, *stream) for m in chosen]
    return [_seeded(make, one).eval() for one in seeds]  # what a user's dropout would draw is nobody's stream


class Members:
    """Networks with the normaliser of their inputs and the scale of their rewards.

    Member `m` is initialised from `(seed, "reward", m, "init")` alone, on the CPU: the same on every device and
    however the members are split over processes.
    """

    def __init__(
        self,
        options: RewardOptions,
        obs_dim: int,
        action_dim: int,
        indices: Sequence[int],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        plan: Plan | None = None,
        threads: int | None = None,
    ) -> None:
        if not indices or len(set(indices)) != len(indices) or not all(0 <= m < options.members for m in indices):
            raise ValueError(f"members {list(indices)} of an ensemble of {options.members}")
        self.indices = tuple(indices)
        self.options, self._seed = options, seed
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.device = torch.device(device)
        networks = [network.to(self.device) for network in self._made("init")]
        handwritten = all(type(network) is MLPReward for network in networks)
        self.plan = plan or choose_plan(self.device, members=len(networks), handwritten=handwritten, threads=threads)
        self.blocks: list[Block] = make_blocks(
            networks, obs_dim, stacked=self.plan.stacked, row_groups=self.plan.row_groups
        )
        ends = np.cumsum([0, *(len(block.networks) for block in self.blocks)]).tolist()
        self.rows = [slice(first, end) for first, end in pairwise(ends)]
        """By block: the members it holds, as rows of `[E, ...]`."""
        self._networks = networks
        self.threads = Threads(min(self.plan.threads, len(self.blocks)))
        self._spaces = [Workspace(self.device) for _ in self.blocks]
        self.input_mean = torch.zeros(obs_dim, device=self.device)
        self.input_std = torch.ones(obs_dim, device=self.device)
        self.reward_scale = 1.0

    def _made(self, *stream: str | int) -> list[nn.Module]:
        """A network for each member, drawn from `stream` of its own."""
        return member_networks(self.options, self.obs_dim, self.action_dim, self.indices, stream, seed=self._seed)

    @torch.no_grad()
    def restart(self, number: int) -> None:
        """Makes all members as if they had seen nothing; `number` tells one restart from another."""
        for network, fresh in zip(self._networks, self._made("restart", number), strict=True):
            for name, value in fresh.state_dict().items():
                network.state_dict()[name].copy_(value)

    @property
    def widths(self) -> list[int]:
        """Numbers of an observation and of an action."""
        return [self.obs_dim, self.action_dim]

    def inputs(self, obs: Tensor, action: Tensor, out: Tensor) -> Tensor:
        """Writes the networks' input into `out` `[..., D]`: observations, standardised if asked, and actions."""
        out[..., : self.obs_dim] = obs
        out[..., self.obs_dim :] = action
        if self.options.normalize_inputs:
            out[..., : self.obs_dim].sub_(self.input_mean).div_(self.input_std)
        return out

    def set_input_moments(self, mean: Tensor, std: Tensor) -> None:
        """Standardise observations by `mean` and `std` `[O]` from now on."""
        self.input_mean.copy_(mean)
        self.input_std.copy_(torch.where(std < MIN_STD, torch.ones_like(std), std))

    @torch.no_grad()
    def rewards(self, obs: Tensor | Floats, action: Tensor | Floats) -> Tensor:
        """Unscaled rewards `[E, ...]` of `obs` `[..., O]` and `action` `[..., A]`, on this device.

        With three axes or more the last but one is time; one or two axes are single transitions.
        Raises ValueError if widths or leading axes do not fit.
        """
        obs, action = as_tensor(obs, self.device), as_tensor(action, self.device)
        shape = obs.shape[:-1]
        if obs.shape[-1:] != (self.obs_dim,) or action.shape != (*shape, self.action_dim):
            wanted = f"obs [..., {self.obs_dim}] and action [..., {self.action_dim}]"
            raise ValueError(f"obs {list(obs.shape)} and action {list(action.shape)}, not {wanted}")
        steps = shape[-1] if len(shape) > 1 else 1
        count = shape.numel() // max(steps, 1)
        obs = obs.reshape(count, steps, self.obs_dim)
        action = action.reshape(count, steps, self.action_dim)
        result = torch.empty(len(self.indices), count, steps, device=self.device)
        if self.threads.count > 1 and count * steps > self.plan.score_rows:
            self.threads.map(lambda i: self._score(range(i, i + 1), obs, action, result), range(len(self.blocks)))
        else:
            self._score(range(len(self.blocks)), obs, action, result)
        return result.view(len(self.indices), *shape)

    @torch.no_grad()
    def _score(self, blocks: range, obs: Tensor, action: Tensor, result: Tensor) -> None:
        """Writes the rewards by `blocks` of `obs` `[S, T, O]` and `action` `[S, T, A]` into `result` `[E, S, T]`."""
        count, steps = obs.shape[:2]
        space = self._spaces[blocks[0]]
        chunk = max(1, self.plan.score_rows // max(steps, 1))
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            x = space.take("input", part.stop - start, steps, self.obs_dim + self.action_dim)
            self.inputs(obs[part], action[part], x)
            for block in blocks:
                result[self.rows[block], part] = self.blocks[block].rewards(x, space)

    def parameters(self) -> list[nn.Parameter]:
        """What of the networks is trained, member after member."""
        return [value for network in self._networks for value in network.parameters() if value.requires_grad]

    def by_name(self, values: Sequence[Tensor]) -> Arrays:
        """`values`, one for each of `parameters`, as `network/NAME` `[E, ...]`."""
        names = [name for name, value in self._networks[0].named_parameters() if value.requires_grad]
        return {
            f"network/{name}": torch.stack(list(values[place :: len(names)])).cpu().numpy()
            for place, name in enumerate(names)
        }

    def differentiable(self, obs: Tensor, action: Tensor) -> Tensor:
        """Scaled rewards `[E, B]` of `obs` `[B, O]` and `action` `[B, A]`, through autograd to `parameters`."""
        x = self.inputs(obs, action, torch.empty(len(obs), sum(self.widths), device=self.device))[:, None]
        obs, action = torch.split(x, self.widths, dim=-1)
        rewards = [network(obs, action).squeeze(-1) for network in self._networks]
        return torch.stack(rewards) * self.reward_scale

    def weights(self) -> Arrays:
        """What scoring needs, copied: per member `network/NAME` `[E, ...]`, the normaliser, the scale."""
        states = [network.state_dict() for network in self._networks]
        arrays: Arrays = {
            "members": np.array(self.indices, dtype=np.int64),
            "inputs/mean": self.input_mean.cpu().numpy().copy(),
            "inputs/std": self.input_std.cpu().numpy().copy(),
            "reward_scale": np.array(self.reward_scale, dtype=np.float64),
        }
        for name in states[0]:
            arrays[f"network/{name}"] = torch.stack([state[name] for state in states]).cpu().numpy()
        return arrays

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes in what `weights()` of the same members and networks gave. Raises ValueError on others."""
        if tuple(int(m) for m in weights["members"]) != self.indices:
            raise ValueError(f"weights of members {weights['members'].tolist()} for members {list(self.indices)}")
        for row, network in enumerate(self._networks):
            for name, held in network.state_dict().items():
                value = weights.get(f"network/{name}")
                if value is None or value.shape[1:] != held.shape:
                    raise ValueError(f"the weights hold no {name!r} of shape {list(held.shape)}: another network's")
                held.copy_(torch.from_numpy(value[row].copy()))
        self.input_mean.copy_(torch.from_numpy(weights["inputs/mean"].copy()))
        self.input_std.copy_(torch.from_numpy(weights["inputs/std"].copy()))
        self.reward_scale = float(weights["reward_scale"])


def _by_member(name: str) -> bool:
    """Whether `name` in an ensemble's weights or state has a row for each member; all else they share."""
    return name == "members" or name.startswith(("network/", "adam/"))


def merge_members(parts: Sequence[Mapping[str, NDArray[np.generic]]]) -> Arrays:
    """The weights, or states, of a whole ensemble from those of its parts, members in ascending order.

    The parts must have been fitted together: all but the members must agree, or ValueError is raised. Sums of running
    moments may differ in their last digits where the parts were on unlike devices: the first part's are taken.
    """
    order = np.argsort(np.concatenate([part["members"] for part in parts]), kind="stable")
    merged: Arrays = {}
    for name, shared in parts[0].items():
        if _by_member(name):
            merged[name] = np.concatenate([part[name] for part in parts])[order]
        elif name.startswith("moments/") or all(np.array_equal(part[name], shared) for part in parts):
            merged[name] = shared
        else:
            raise ValueError(f"the parts of the ensemble disagree about {name!r}")
    return merged


def take_members(arrays: Mapping[str, NDArray[np.generic]], indices: Sequence[int]) -> Arrays:
    """The reverse of `merge_members`: the part of the members `indices`, which must be there."""
    row = {int(member): i for i, member in enumerate(arrays["members"])}
    rows = [row[member] for member in indices]
    return {name: array[rows] if _by_member(name) else array for name, array in arrays.items()}

"""What every learner here is: an RLlib learner whose batch path is ours.

RLlib builds it, places it and holds its networks; what it learns from comes by `insert` and never leaves this process.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import ray
import torch
import torch.distributed
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from rayrlhf import seeding
from rayrlhf.algorithms.files import Arrays, Files
from rayrlhf.algorithms.graphs import GraphedUpdate
from rayrlhf.algorithms.roles import Ref
from rayrlhf.algorithms.shards import ShardEntry, shard_file
from rayrlhf.config import RunConfig
from rayrlhf.cores import processor_name
from rayrlhf.exploration.reward_spread import mean_and_spread, spread_weight
from rayrlhf.exploration.state_entropy import StateEntropy
from rayrlhf.logs import log_as
from rayrlhf.policies import PpoUpdate, SacUpdate
from rayrlhf.preferences.fragments import Fragment
from rayrlhf.rewards import RewardScorer

RewardSource = Literal["entropy", "ensemble", "true"]


class PreferenceLearner(TorchLearner):
    """Networks, what rewards their experience, and one of the streams of random numbers of a run."""

    update_step: SacUpdate | PpoUpdate

    def __repr__(self) -> str:
        """What Ray puts before its lines of log, and shows in its dashboard."""
        return f"{self.config.run_name}/learner-{self._learner_index}"

    def build(self) -> None:
        """Builds networks and optimisers through RLlib, then what rewards."""
        self.run: RunConfig = self.config.run
        if self.config.num_learners:  # else the driver's own
            log_as(self.config.run_name, f"learner-{self._learner_index}")
        torch.set_num_threads(self.run.resources.threads)
        self.learners = max(1, self.run.resources.learners)
        self._graphs: GraphedUpdate | None = None
        super().build()
        run = self.run
        # one round more than the run needs: the asynchronous mode may go past its last step
        self.most_rows = -(-(run.total_steps + 2 * run.rollout.round_steps) // self.learners)
        self.updates = 0
        self.generator = torch.Generator(self._device)
        self.generator.manual_seed(seeding.integer_seed(run.seed, "learner", self._learner_index))
        widths = self.networks.obs_dim, self.networks.action_dim
        self.scorer = RewardScorer(run.reward, *widths, self._device, threads=run.resources.member_threads)
        self.reward_version = 0
        # weights of the members' mean and spread; in place, since a graph holds the address
        self.bonus: Tensor | None = None
        if run.explore.spread_weight:
            self.bonus = torch.tensor([1.0, 0.0], device=self._device)
        self.source: RewardSource = "entropy"
        # memory is taken as states come
        self.entropy: StateEntropy | None = None
        if run.explore.unsupervised_steps:
            observed = widths[0] - run.env.said_width
            self.entropy = StateEntropy(observed, run.explore.neighbours, capacity=self.most_rows, device=self._device)

    def _add_states(self, obs: Tensor) -> None:
        """Observations `[M, O]` for the state entropy: what is told the robot is nothing that it finds."""
        if self.entropy is not None:
            self.entropy.add(obs[:, : obs.shape[1] - self.run.env.said_width])

    @property
    def networks(self) -> Any:
        """The networks inside RLlib's module."""
        return self.module[DEFAULT_MODULE_ID].networks

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Registers the update's optimisers, as RLlib wants it."""
        average = self._average if self.config.num_learners > 1 else None
        self.update_step = self._make_update(self._module[module_id].networks, average)
        for name, optimizer in self.update_step.optimizers.items():
            group = optimizer.param_groups[0]
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=optimizer,
                params=list(group["params"]),
                lr_or_lr_schedule=group["lr"],
            )

    @abstractmethod
    def _make_update(self, networks: Any, average: Any) -> SacUpdate | PpoUpdate:
        """The update of `networks`; `average` averages tensors over learners, none where there is one."""

    def compute_loss_for_module(self, **kwargs: Any) -> Any:
        """Not used: `learn` is the batch path. RLlib's `LearnerGroup.update` would end here."""
        raise RuntimeError("this learner learns through learn(), not through LearnerGroup.update()")

    def _make_modules_ddp_if_necessary(self) -> None:
        """No wrapper: all learners start from the same seed, and `_average` keeps them equal."""

    @staticmethod
    def _average(tensors: list[Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        means = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    # --- what the driver asks for ---

    def insert(self, fragments: Sequence[Fragment | Ref]) -> None:
        """Takes in fragments."""
        for item in fragments:
            self._insert(ray.get(item) if isinstance(item, ray.ObjectRef) else item)

    @abstractmethod
    def _insert(self, fragment: Fragment) -> None: ...

    def _learned_reward(self, obs: Tensor, action: Tensor) -> Tensor:
        """The ensemble's `[M]`; zero before its first label: random weights are no preference.

        Where disagreement is rewarded, `[M, 2]`: the parts that `bonus` has the weights of.
        """
        if not self.reward_version:
            return torch.zeros(len(obs), device=self._device)
        if self.bonus is None:
            return self.scorer.score(obs, action)
        return mean_and_spread(self.scorer.member_scores(obs, action))

    def _weigh_bonus(self, env_steps: int) -> None:
        """Gives the bonus the weight that it has after `env_steps` steps of the run."""
        if self.bonus is not None:
            self.bonus[1] = spread_weight(self.run.explore, env_steps)

    def reward_with(self, source: RewardSource, weights: Arrays | Ref | None = None, version: int = 0) -> None:
        """Makes `source` the reward.

        `weights` are the ensemble's, by value or by reference, with their version; only for the source `ensemble`.
        """
        self.source = source
        if source != "entropy":
            self.entropy = None
        if source == "ensemble":
            assert weights is not None, "the source 'ensemble' needs the ensemble's weights"
            self.load_reward(weights, version)

    def load_reward(self, weights: Arrays | Ref, version: int) -> None:
        """The ensemble's weights, for what is rewarded from now on."""
        self.scorer.load(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
        self.reward_version = version

    def reset_critic(self) -> None:
        """Forgets the critic, not the actor, when the reward first means something (PEBBLE, section 4.2)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.integer_seed(self.run.seed, "critic reset", self.updates))
            self.update_step.reset_critic()
        self._graphs = None

    @property
    def _graphed(self) -> bool:
        """Updates are replayed from CUDA graphs; gradients that are reduced between learners cannot be."""
        return bool(self._device.type == "cuda") and self.learners == 1

    @staticmethod
    def _finite(means: dict[str, float], updates: int) -> dict[str, float]:
        """`means`; FloatingPointError where one of them is no number."""
        if broken := [name for name, value in means.items() if not np.isfinite(value)]:
            raise FloatingPointError(f"{', '.join(broken)} is not finite after {updates} updates")
        return means

    def actor_weights(self) -> Arrays:
        """The actor's parameters, for rollout actors."""
        return {name: _array(value) for name, value in self.networks.actor.state_dict().items()}

    def device_name(self) -> str:
        """The GPU, or the processor, that this learner computes on."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return processor_name()

    # --- checkpoints ---

    def arrays(self) -> Arrays:
        """Networks and optimisers, flat: `networks/NAME` and `optimizer/NAME/INDEX/STATE`."""
        flat = {f"networks/{name}": _array(value) for name, value in self.networks.state_dict().items()}
        for name, optimizer in self.update_step.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                flat |= {f"optimizer/{name}/{index}/{key}": _array(value) for key, value in state.items()}
        return flat

    def load_arrays(self, flat: Arrays, same_run: bool = True) -> None:
        """The reverse of `arrays`, of this run's or of another one's exploration."""
        nets = {name.split("/", 1)[1]: torch.from_numpy(a) for name, a in flat.items() if name.startswith("networks/")}
        self.networks.load_state_dict(nets)
        for name, optimizer in self.update_step.optimizers.items():
            prefix = f"optimizer/{name}/"
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in flat.items():
                if key.startswith(prefix):
                    index, field = key[len(prefix) :].split("/")
                    state.setdefault(int(index), {})[field] = torch.from_numpy(value)
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self._graphs = None

    def save_shard(self, files: Files, rows: Files) -> tuple[ShardEntry, Files, Files]:
        """Writes new row chunks to `rows`, and what changes between checkpoints to `files`; these come back."""
        arrays: Arrays = {"generator": self.generator.get_state().numpy(), "updates": np.array(self.updates)}
        if self.entropy is not None:
            arrays |= {f"entropy/{name}": value for name, value in self.entropy.state().items()}
        entry, mine = self._save_rows(rows)
        files.write(shard_file(self._learner_index), arrays | mine)
        return entry, files, rows

    @abstractmethod
    def _save_rows(self, rows: Files) -> tuple[ShardEntry, Arrays]:
        """Writes new row chunks to `rows`; what else of the shard there is to keep."""

    def load_shard(
        self, files: Files, rows: Files, entries: list[ShardEntry], source: RewardSource, same_run: bool
    ) -> None:
        """Restores this learner's shard; where the number of learners has changed, its share of all rows.

        Another run's exploration (`same_run` false) gives the rows, not the generator: seeds must differ.
        """
        same = len(entries) == self.learners
        mine = [entry for entry in entries if not same or entry["index"] == self._learner_index]
        states = [files.read(shard_file(entry["index"])) for entry in mine]
        share = slice(None) if same else slice(self._learner_index, None, self.learners)
        self._load_rows(rows, mine, states, share)
        self.source = source
        self.updates = int(states[0]["updates"])
        if same and same_run:
            self.generator.set_state(torch.from_numpy(states[0]["generator"]))
        elif same_run:  # a stream of its own: not the one this learner began the run with
            self.generator.manual_seed(
                seeding.integer_seed(self.run.seed, "learner", self._learner_index, "dealt anew", self.updates)
            )
        if source != "entropy":
            self.entropy = None
        elif self.entropy is not None:
            self._load_entropy(states, share)

    @abstractmethod
    def _load_rows(self, rows: Files, entries: list[ShardEntry], states: list[Arrays], share: slice) -> None:
        """Restores the rows of `entries`, whose files held `states`, that `share` takes of them all."""

    def _load_entropy(self, states: list[Arrays], share: slice) -> None:
        """From what was saved; anew where shards are dealt again or the other run did not explore."""
        assert self.entropy is not None
        saved = [
            {name.split("/", 1)[1]: value for name, value in state.items() if name.startswith("entropy/")}
            for state in states
        ]
        if len(saved) == 1 and saved[0] and share == slice(None):
            self.entropy.load_state(saved[0])
        else:
            self._entropy_anew([state["obs"] for state in saved if state], share)

    @abstractmethod
    def _entropy_anew(self, states: list[NDArray[np.float32]], share: slice) -> None:
        """Fills the state entropy's set; `states` `[M, O]` are those of each former shard, `share` this learner's."""


def _array(value: Any) -> NDArray[Any]:
    return torch.as_tensor(value).detach().cpu().numpy()

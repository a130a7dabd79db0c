"""The learner: SAC updates on a replay of its own, relabelled by the reward ensemble's weights.

RLlib builds it, places it and keeps its networks and optimisers in the checkpoint; the batch path is ours: rows are
inserted, relabelled, drawn and learnt from without leaving this process.
"""

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
from rayrlhf.algorithms.replay import Replay, Rows
from rayrlhf.algorithms.roles import Ref
from rayrlhf.algorithms.shards import ShardEntry, load_rows, reward_column, save_rows, shard_file
from rayrlhf.config import RunConfig
from rayrlhf.exploration.state_entropy import StateEntropy
from rayrlhf.logs import log_as
from rayrlhf.policies import SacNetworks, SacUpdate
from rayrlhf.preferences.fragments import Fragment
from rayrlhf.rewards import RewardScorer

RewardSource = Literal["entropy", "ensemble", "true"]


class PebbleLearner(TorchLearner):
    """One shard of the replay and the networks that learn from it."""

    def __repr__(self) -> str:
        """What Ray puts before its lines of log, and shows in its dashboard."""
        return f"{self.config.run_name}/learner-{self._learner_index}"

    def build(self) -> None:
        """Builds networks and optimisers through RLlib, then the replay and what rewards it."""
        self.run: RunConfig = self.config.run
        if self.config.num_learners:  # else the driver's own
            log_as(self.config.run_name, f"learner-{self._learner_index}")
        torch.set_num_threads(self.run.resources.threads)
        super().build()
        nets, run = self.networks, self.run
        obs_dim, action_dim = nets.obs_dim, nets.action_dim
        learners = max(1, run.resources.learners)
        # one round more than the run needs: the asynchronous mode may go past its last step
        rounds = 2 * run.rollout.round_steps
        capacity = min(run.sac.replay_capacity, run.total_steps + rounds)
        self.replay = Replay(-(-capacity // learners), obs_dim, action_dim, self._device)
        self.batch_size = run.sac.batch_size // learners
        self.updates = 0
        self.generator = torch.Generator(self._device)
        self.generator.manual_seed(seeding.integer_seed(run.seed, "learner", self._learner_index))
        self.scorer = RewardScorer(run.reward, obs_dim, action_dim, self._device, threads=run.resources.member_threads)
        self.reward_version = 0
        self.source: RewardSource = "entropy"
        self.entropy: StateEntropy | None = self._new_entropy() if run.explore.unsupervised_steps else None
        self._graphs: GraphedUpdate | None = None
        # what an update reads and adds to stays in place: a graph holds the addresses
        self._size = torch.zeros((), dtype=torch.float64, device=self._device)
        self._sums = torch.zeros(len(SacUpdate.MEASURES), dtype=torch.float64, device=self._device)

    def _new_entropy(self) -> StateEntropy:
        # memory is taken as states come; exploration ends long before the replay wraps
        return StateEntropy(
            self.networks.obs_dim, self.run.explore.neighbours, capacity=self.replay.capacity, device=self._device
        )

    @property
    def networks(self) -> SacNetworks:
        """The networks inside RLlib's module."""
        return self.module[DEFAULT_MODULE_ID].networks  # type: ignore[no-any-return]

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Registers the update's three optimisers, so that RLlib saves and restores them."""
        networks = self._module[module_id].networks
        reduce = self._all_reduce if self.config.num_learners > 1 else None
        self.update_step = SacUpdate(networks, self.run.sac, reduce_gradients=reduce)
        for name, optimizer in self.update_step.optimizers.items():
            group = optimizer.param_groups[0]
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=optimizer,
                params=list(group["params"]),
                lr_or_lr_schedule=group["lr"],
            )

    def compute_loss_for_module(self, **kwargs: Any) -> Any:
        """Not used: `learn` is the batch path. RLlib's `LearnerGroup.update` would end here."""
        raise RuntimeError("PebbleLearner learns through learn(), not through LearnerGroup.update()")

    def _make_modules_ddp_if_necessary(self) -> None:
        """No wrapper: all learners start from the same seed, and `_all_reduce` keeps them equal."""

    @staticmethod
    def _all_reduce(gradients: list[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    # --- what the driver asks for ---

    def insert(self, fragments: Sequence[Fragment | Ref]) -> None:
        """Writes fragments to the replay, scored by the newest reward."""
        for item in fragments:
            fragment = ray.get(item) if isinstance(item, ray.ObjectRef) else item
            rows = Rows.from_fragment(fragment).to(self._device)
            if self.entropy is not None:
                self.entropy.add(rows.obs)
            self.replay.insert(rows, self._score(rows))

    def _score(self, rows: Rows) -> Tensor:
        if self.source == "true":
            return rows.true_reward
        if self.source == "ensemble":
            return self._learned_reward(rows.obs, rows.action)
        return torch.zeros(len(rows.obs), device=self._device)

    def _learned_reward(self, obs: Tensor, action: Tensor) -> Tensor:
        """The ensemble's `[M]`; zero before its first label: random weights are no preference."""
        if self.reward_version:
            return self.scorer.score(obs, action)
        return torch.zeros(len(obs), device=self._device)

    def reward_with(self, source: RewardSource, weights: Arrays | Ref | None = None, version: int = 0) -> None:
        """Makes `source` the reward and recomputes the whole column.

        `weights` are the ensemble's, by value or by reference, with their version; only for the source `ensemble`.
        """
        self.source = source
        if source != "entropy":
            self.entropy = None
        if source == "true":
            self.replay.use_true_reward()
        if source == "ensemble":
            assert weights is not None, "the source 'ensemble' needs the ensemble's weights"
            self.load_reward(weights, version)
            self.replay.relabel(self._learned_reward)

    def learn(self, updates: int) -> dict[str, float]:
        """Runs `updates` SAC updates; the means of losses, values, entropy and temperature over them."""
        if not updates or not self.replay.size:
            return {}
        self._size.fill_(float(self.replay.size))
        self._sums.zero_()
        for _ in range(updates):
            self.updates += 1
            self._one_update(self.updates % self.run.sac.target_update_interval == 0)
        means = dict(zip(SacUpdate.MEASURES, (self._sums / updates).tolist(), strict=True))
        broken = [name for name, value in means.items() if not np.isfinite(value)]
        if broken:
            raise FloatingPointError(f"{', '.join(broken)} is not finite after {self.updates} updates")
        return means

    def _one_update(self, move_target: bool) -> None:
        if self._device.type != "cuda" or self.config.num_learners > 1:
            self._draw_and_update(move_target)
            return
        layout = self.entropy.layout if self.entropy is not None else None
        if self._graphs is None or self._graphs.layout != layout:
            self._graphs = GraphedUpdate(self._draw_and_update, self.generator, layout)
        self._graphs(move_target)

    def _draw_and_update(self, move_target: bool) -> None:
        uniform = torch.rand(self.batch_size, dtype=torch.float64, generator=self.generator, device=self._device)
        index = (uniform * self._size).long()
        noise = torch.randn(
            (2, self.batch_size, self.networks.action_dim), generator=self.generator, device=self._device
        )
        intrinsic = self.entropy.reward(index) if self.source == "entropy" and self.entropy is not None else None
        batch = self.replay.gather(index, intrinsic)
        found = self.update_step(batch, noise[0], noise[1], move_target=move_target)
        self._sums += torch.stack([found[name] for name in SacUpdate.MEASURES])

    def reset_critic(self) -> None:
        """Forgets the critic, not the actor, when the reward first means something (PEBBLE, section 4.2)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.integer_seed(self.run.seed, "critic reset", self.updates))
            self.update_step.reset_critic()
        self._graphs = None

    def replay_size(self) -> int:
        """Transitions in this shard that can be drawn."""
        return self.replay.size

    def actor_weights(self) -> Arrays:
        """The actor's parameters, for rollout actors."""
        return {name: value.detach().cpu().numpy() for name, value in self.networks.actor.state_dict().items()}

    # --- checkpoints ---

    def arrays(self) -> Arrays:
        """Networks and optimisers, flat: `networks/NAME` and `optimizer/NAME/INDEX/STATE`."""
        flat = {f"networks/{name}": _array(value) for name, value in self.networks.state_dict().items()}
        for name, optimizer in self.update_step.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                flat |= {f"optimizer/{name}/{index}/{key}": _array(value) for key, value in state.items()}
        return flat

    def load_arrays(self, flat: Arrays) -> None:
        """The reverse of `arrays`."""
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
        arrays: Arrays = {
            "reward": reward_column(self.replay),
            "generator": self.generator.get_state().numpy(),
            "updates": np.array(self.updates),
        }
        if self.entropy is not None:
            arrays |= {f"entropy/{name}": value for name, value in self.entropy.state().items()}
        files.write(shard_file(self._learner_index), arrays)
        return save_rows(self.replay, rows, self._learner_index), files, rows

    def load_shard(
        self, files: Files, rows: Files, entries: list[ShardEntry], source: RewardSource, same_run: bool
    ) -> None:
        """Restores this learner's shard; where the number of learners has changed, its share of all rows.

        Another run's exploration (`same_run` false) gives the rows, not the generator: seeds must differ.
        """
        learners = max(1, self.run.resources.learners)
        same = len(entries) == learners
        mine = [entry for entry in entries if not same or entry["index"] == self._learner_index]
        states = [files.read(shard_file(entry["index"])) for entry in mine]
        share = slice(None) if same else slice(self._learner_index, None, learners)
        load_rows(self.replay, rows, mine, [state["reward"] for state in states], share)
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
            self._load_entropy(states[0] if same else {})

    def _load_entropy(self, state: Arrays) -> None:
        """From what was saved; anew where shards were dealt again or the other run did not explore."""
        assert self.entropy is not None
        saved = {name.split("/", 1)[1]: value for name, value in state.items() if name.startswith("entropy/")}
        if saved:
            self.entropy.load_state(saved)
        elif self.replay.size:
            self.entropy.add(self.replay.columns["obs"][: self.replay.size])

    def load_reward(self, weights: Arrays | Ref, version: int) -> None:
        """The ensemble's weights without relabelling: the restored column is right already."""
        self.scorer.load(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
        self.reward_version = version


def _array(value: Any) -> NDArray[Any]:
    return torch.as_tensor(value).detach().cpu().numpy()

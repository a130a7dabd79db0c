"""The policies that one process serves: loaded when asked for, exchanged in place, followed while they learn."""

import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayrlhf import seeding
from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import Damaged
from rayrlhf.errors import UserError
from rayrlhf.language.instructions import Vocabulary
from rayrlhf.policies import DeployedPolicy
from rayrlhf.preferences.fragments import Floats
from rayrlhf.rewards import RewardScorer
from rayrlhf.tracking.ray_metrics import Meters
from rayrlhf.trained import Trained, candidates, load_newest

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Version:
    """One checkpoint's policy and reward, ready to answer. It never changes, so a request keeps the one it began with.

    obs_dim: width of the simulator's observations
    vocabulary: the vectors of instructions; none where the policy takes none
    scoring: one request at a time scores; the ensemble's workspaces are shared
    """

    id: str
    seal: str
    card: dict[str, Any]
    policy: DeployedPolicy
    scorer: RewardScorer | None
    obs_dim: int
    action_dim: int
    vocabulary: Vocabulary | None = None
    scoring: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, trained: Trained) -> "Version":
        """What of a checkpoint is served; the rest is let go."""
        spec = trained.spec
        return cls(
            trained.version,
            trained.manifest["seal"],
            trained.card(),
            trained.deployed(),
            trained.scorer(),
            spec.obs_dim - trained.config.env.said_width,
            spec.action_dim,
            trained.vocabulary,
        )

    def told(self, obs: Floats, instruction: str | None) -> Floats:
        """Observations `[..., O]` as the policy takes them: with the instruction, where it takes one.

        Raises `UserError` where the sentence is none that it was trained with, and its encoder is not here.
        """
        if self.vocabulary is None or instruction is None:
            return obs
        said = np.broadcast_to(self.vocabulary.vectors([instruction])[0], (*obs.shape[:-1], self.vocabulary.width))
        return np.concatenate([obs, said], axis=-1)

    def act(self, obs: Floats, noise: Floats | None) -> Floats:
        """Actions `[B, A]` in the simulator's units: `told` obs `[B, O]`, standard normal noise `[B, A]` or none."""
        with torch.inference_mode():
            drawn = None if noise is None else torch.from_numpy(noise)
            actions: Floats = self.policy.act(torch.from_numpy(obs), drawn).numpy()
        return actions

    def noise(self, rows: int, seed: int | None) -> Floats:
        """Standard normal `[rows, A]`; the same again for the same `seed`."""
        draws = np.random.default_rng() if seed is None else seeding.generator(seed, "act")
        return draws.standard_normal((rows, self.action_dim), dtype=np.float32)

    def rewards(self, obs: Floats, action: Floats) -> Floats:
        """Each member's rewards `[E, B, T]` of told obs `[B, T, O]` and actions `[B, T, A]` in the simulator's units.

        Raises ValueError where there is no fitted reward.
        """
        if self.scorer is None:
            raise ValueError("no fitted reward")
        with self.scoring:
            unit = self.policy.to_unit(torch.from_numpy(action))
            scores: Floats = self.scorer.member_scores(obs, unit).numpy()
        return scores


@dataclass(frozen=True)
class Ask:
    """One observation `[O]`, `told`, the noise `[A]` of a sampled action or none, and the version that is to answer."""

    version: Version
    obs: Floats
    noise: Floats | None


def act_on_all(asks: Sequence[Ask]) -> list[Floats]:
    """Actions `[A]`, one for each of `asks`: one pass for each version among them."""
    actions: dict[int, Floats] = {}
    for version in {id(ask.version): ask.version for ask in asks}.values():
        numbers = [i for i, ask in enumerate(asks) if ask.version is version]
        obs = np.stack([asks[i].obs for i in numbers])
        zeros = np.zeros(version.action_dim, np.float32)
        drawn = [asks[i].noise for i in numbers]
        noise = None
        if any(row is not None for row in drawn):
            noise = np.stack([zeros if row is None else row for row in drawn])
        actions |= dict(zip(numbers, version.act(obs, noise), strict=True))
    return [actions[i] for i in range(len(asks))]


class Model:
    """A policy by its name: whichever version of it is served now. Raises `UserError` where there is none to load."""

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self._target = Path(target)
        self._complained: str | None = None
        self._exchange = threading.Lock()
        self.current = Version.of(load_newest(self._target))
        self._note()

    def aim(self, target: str) -> None:
        """Serves another run or checkpoint from now on. `UserError`, and the old one goes on, where it cannot be."""
        with self._exchange:
            fresh = Version.of(load_newest(Path(target)))
            self._target, self.current = Path(target), fresh
            self._note(exchanged=True)

    def follow(self) -> bool:
        """Goes on to the newest whole checkpoint of its run; whether there was another one.

        Half-written and damaged ones are passed over. Where none can be read the old policy goes on.
        """
        with self._exchange:
            try:
                return self._step_on()
            except (UserError, OSError) as trouble:
                self._complain(str(trouble))
                return False

    def _step_on(self) -> bool:
        run, places = candidates(self._target)
        for place in places:
            try:
                if checkpoint.seal_of(place) == self.current.seal:
                    return False
                self.current = Version.of(Trained.load(run, place))
                self._note(exchanged=True)
                return True
            except Damaged as damaged:
                self._complain(str(damaged))
        return False

    def _note(self, *, exchanged: bool = False) -> None:
        """Records which version is served."""
        card = self.current.card
        self._meters = Meters(run=card["run"], task=card["task"], model=self.name)  # of another run after an `aim`
        self._meters.record("rayrlhf_policy_env_steps", card["env_steps"])
        if exchanged:
            self._meters.record("rayrlhf_policy_exchanges")

    def _complain(self, line: str) -> None:
        """Once, not at every look."""
        if line != self._complained:
            log.warning("%s goes on with version %s: %s", self.name, self.current.id, line)
            self._complained = line


class Shelf:
    """The models of one process, by name.

    `load` and `act` are coroutines because Serve's multiplexing and batching take their places in a replica.
    """

    def __init__(self, targets: Mapping[str, str], *, watch_seconds: float | None = None) -> None:
        self._targets = dict(targets)
        self._loaded: dict[str, Model] = {}
        self._alive: weakref.WeakSet[Model] = weakref.WeakSet()  # Serve lets go of those that are not used
        self._counting = threading.Lock()
        self._ended = threading.Event()
        if watch_seconds is not None:
            threading.Thread(target=self._watch, args=(watch_seconds,), name="watch", daemon=True).start()

    @property
    def names(self) -> list[str]:
        """What can be asked for."""
        return list(self._targets)

    @property
    def ready(self) -> bool:
        """Whether any of them is loaded."""
        return len(self._alive) > 0

    async def load(self, name: str) -> Model:
        """The model `name`, which is one of `names`."""
        if name not in self._loaded:
            self._loaded[name] = self.take(name)
        return self._loaded[name]

    async def act(self, ask: Ask) -> Floats:
        """An action `[A]`."""
        return act_on_all([ask])[0]

    def take(self, name: str) -> Model:
        """Loads a model, which is followed from now on as long as somebody holds it."""
        model = Model(name, self._targets[name])
        with self._counting:
            self._alive.add(model)
        return model

    def _models(self) -> list[Model]:
        """Those that are held now, while other threads load and let go."""
        with self._counting:
            return list(self._alive)

    def aim(self, targets: Mapping[str, str]) -> None:
        """Serves other runs or checkpoints under names that are there; what cannot be loaded leaves the old one."""
        for name, target in targets.items():
            if name not in self._targets:
                log.warning("there is no policy %r to exchange; there are %s", name, ", ".join(self.names))
                continue
            try:
                for model in [model for model in self._models() if model.name == name]:
                    model.aim(target)
                self._targets[name] = target
            except UserError as trouble:
                log.warning("%s stays as it is: %s", name, trouble)

    def follow(self) -> None:
        """One look at whatever is loaded."""
        for model in self._models():
            try:
                if model.follow():
                    log.info("%s is at version %s now", model.name, model.current.id)
            except Exception:  # the thread must go on, and the old policy with it
                log.exception("%s cannot be followed", model.name)

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def _watch(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self.follow()

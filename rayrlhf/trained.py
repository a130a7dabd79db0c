"""What training left in a run's folder, found and taken out again: the policy, the reward ensemble, what they are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rayrlhf
from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import Arrays, Damaged, read_arrays
from rayrlhf.config import RunConfig
from rayrlhf.envs import EnvSpec, check_env
from rayrlhf.envs.instructions import Instructions
from rayrlhf.errors import UserError
from rayrlhf.language.instructions import Vocabulary, read_instructions
from rayrlhf.policies import Actor, DeployedPolicy, make_actor
from rayrlhf.preferences import PreferenceDataset
from rayrlhf.rewards import RewardScorer, merge_members
from rayrlhf.rewards.stored import FEW_SHOT, FILE, PAIRS, RewardModel, scoring_part
from rayrlhf.tracking import RunDirectory

ACTOR = "networks/actor."
ENSEMBLE = "feedback/ensemble"
MEASURES = ("success_rate", "success_low", "success_high", "true_return_mean")
"""What is told of a policy where it was measured."""


@dataclass(frozen=True)
class Trained:
    """One checkpoint of a run, whole and in memory.

    place:    its folder; training may have deleted it since
    manifest: what it says of itself
    ensemble: the reward ensemble's state; none where nobody had answered
    instructions: what its observations end with, if they do
    """

    run: RunDirectory
    place: Path
    config: RunConfig
    manifest: dict[str, Any]
    spec: EnvSpec
    actor: Actor
    ensemble: Arrays | None
    instructions: Instructions | None = None

    @classmethod
    def load(cls, run: RunDirectory, place: Path) -> "Trained":
        """Raises `Damaged` where it is not whole, or not there any more, and `UserError` where it does not fit."""
        config = run.config()
        manifest = checkpoint.verify(place, config, with_replay=False)
        spec = check_env(config.env)
        actor = _actor(place, config, spec)
        ensemble = _ensemble(place, manifest)
        return cls(run, place, config, manifest, spec, actor, ensemble, read_instructions(run.instructions_file))

    @property
    def name(self) -> str:
        """A name of it for callers and files: its task, in plain letters."""
        return re.sub(r"[^\w.-]+", "-", self.config.env.task, flags=re.ASCII).strip("-._")[:60] or "policy"

    @property
    def version(self) -> str:
        """Its environment steps and the beginning of its seal: a resumed run may come by the same steps again."""
        return f"{self.manifest['progress']['env_steps']}-{self.manifest['seal'][:8]}"

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vectors of sentences; none where observations end with no instruction."""
        encoder = self.config.env.encoder
        return None if self.instructions is None or encoder is None else Vocabulary(self.instructions, encoder)

    def deployed(self) -> DeployedPolicy:
        """The policy with actions in the simulator's own units."""
        return DeployedPolicy(self.actor, *self.spec.bounds()).eval()

    def scorer(self) -> RewardScorer | None:
        """What scores transitions as training did; none where nobody had answered."""
        if self.ensemble is None:
            return None
        scorer = RewardScorer(self.config.reward, self.spec.obs_dim, self.spec.action_dim, threads=1)
        scorer.load(self.ensemble)
        return scorer

    def card(self) -> dict[str, Any]:
        """What this is: task, layouts, versions, how good it was found to be. Plain JSON."""
        env, progress = self.config.env, self.manifest["progress"]
        low, high = self.spec.bounds()
        simulator = {"suite", "backend", "goal_hidden", "reward_version", "random_start"}
        own = simulator if env.suite == "metaworld" else {"suite"}
        return {
            "task": env.task,
            "env": {**env.model_dump(mode="json", include=own), "horizon": self.spec.horizon},
            "observation": {
                "width": self.spec.obs_dim - env.said_width,
                "layout": "the simulator's own, flattened; what is to be normalised the policy normalises",
            },
            "action": {
                "width": self.spec.action_dim,
                "low": low.tolist(),
                "high": high.tolist(),
                "units": "the simulator's own",
                "repeat": env.action_repeat,
            },
            **self._said(),
            "version": self.version,
            "checkpoint": self.place.name,
            "env_steps": progress["env_steps"],
            "labels": progress["labels"],
            "reward_version": self.manifest["reward_version"],
            "trained_with": self.manifest["rayrlhf"],
            "rayrlhf": rayrlhf.__version__,
            "run": self.run.name,
            "seed": self.config.seed,
            "measured": self._measured(),
        }

    def _said(self) -> dict[str, Any]:
        """What it can be told to do, in the words that it was trained with."""
        if self.instructions is None:
            return {}
        tasks = dict(zip(self.config.env.tasks, self.instructions.sentences, strict=True))
        own = {"encoder": self.config.env.encoder, "width": self.instructions.width}
        return {"instructions": {**own, "tasks": {task: list(dict.fromkeys(said)) for task, said in tasks.items()}}}

    def _measured(self) -> dict[str, Any] | None:
        """The last evaluation of the run up to this checkpoint; none before the first."""
        steps = self.manifest["progress"]["env_steps"]
        summary = self.run.summary()
        if summary is not None and summary.get("env_steps") == steps:
            found = {name: summary[name] for name in MEASURES if summary.get(name) is not None}
            return {"env_steps": steps, "episodes": summary["eval_episodes"], **found}
        rows = [row for row in self.run.metrics() if row.get("true_return_mean") is not None]
        rows = [row for row in rows if (row["env_steps"] or 0) <= steps]
        if not rows:
            return None
        found = {name: rows[-1][name] for name in MEASURES if rows[-1].get(name) is not None}
        return {"env_steps": rows[-1]["env_steps"], "episodes": self.config.evaluation.episodes, **found}


def candidates(target: Path) -> tuple[RunDirectory, list[Path]]:
    """The run that `target` is, or belongs to, and the checkpoints that are meant, newest first.

    Raises `UserError` where it is neither a run nor a checkpoint.
    """
    place = target.resolve()
    if place.parent.name == "checkpoints" and (place / checkpoint.MANIFEST).is_file():
        return RunDirectory.open(place.parent.parent), [place]
    run = RunDirectory.open(target)
    return run, checkpoint.by_age(run.checkpoints)


def load_chosen(target: Path) -> Trained:
    """The checkpoint `target`, or the newest one of the run `target`; `UserError` where that one is not whole."""
    run, places = candidates(target)
    if not places:
        raise UserError(f"{target} has no checkpoint yet")
    place = places[0]
    try:
        return Trained.load(run, place)
    except Damaged as damaged:
        others = [other for other in checkpoint.by_age(place.parent) if other.name < place.name]
        advice = f"; the one before it is {others[0]}" if others else ""
        raise UserError(f"{damaged}{advice}") from damaged


def load_newest(target: Path) -> Trained:
    """The checkpoint `target`, or the newest whole one of the run `target`, which may be training.

    Training deletes old checkpoints while they are read: then there are newer ones. `UserError` where none is whole.
    """
    tried: dict[Path, Damaged] = {}
    while True:
        run, places = candidates(target)
        untried = [place for place in places if place not in tried]
        if not untried:
            break
        try:
            return Trained.load(run, untried[0])
        except Damaged as damaged:
            tried[untried[0]] = damaged
    if not tried:
        raise UserError(f"{target} has no checkpoint yet")
    raise UserError(f"{target} has no whole checkpoint: {next(iter(tried.values()))}")


def reward_model_at(where: Path) -> RewardModel:
    """The reward model in a file, or a folder, that `rayrlhf fit` wrote, or the newest of a run or a checkpoint.

    Raises `UserError` where there is none.
    """
    file = where / FILE if where.is_dir() else where
    if file.is_file():
        return RewardModel.load(file)
    if not where.is_dir():
        wanted = "wanted what `rayrlhf fit` wrote, the folder of a run, or a checkpoint"
        raise UserError(f"there is no reward model {str(where)!r}: {wanted}")
    found = load_newest(where)
    if found.ensemble is None:
        raise UserError(f"{where} has no reward model: nobody had answered, or it learnt from the true reward")
    env = found.config.env
    words = {} if env.encoder is None else {"encoder": env.encoder, "instruction_width": env.instruction_width}
    facts = words | {"run": found.run.name, "task": found.config.env.task, "version": found.version}
    facts |= {PAIRS: sorted(learnt_from(found.run))}
    widths = found.spec.obs_dim, found.spec.action_dim
    return RewardModel(found.config.reward, *widths, scoring_part(found.ensemble), facts)


def learnt_from(run: RunDirectory) -> frozenset[str]:
    """The pairs that the run has learnt from, by `Queries.pairs`.

    They are those it asked about, whether or not anybody answered, and those that a reward model of others in its
    folder was fitted to.
    """
    asked = {pair for queries, _ in PreferenceDataset(run.preferences).read() for pair in queries.pairs()}
    files = [file for file in (run.reward_model_file, run.path / FEW_SHOT) if file.is_file()]
    return frozenset(asked).union(*(RewardModel.load(file).pairs for file in files))


def newest_run(storage: Path) -> RunDirectory:
    """The run in the folder `storage` that trained last, of those with a whole checkpoint; `UserError` without any."""
    last = {
        folder: max((place.stat().st_mtime for place in checkpoint.by_age(folder / "checkpoints")), default=0.0)
        for folder in sorted(storage.glob("*"))
    }
    for folder in sorted(last, key=lambda folder: last[folder], reverse=True):
        try:
            return load_newest(folder).run
        except UserError:
            continue  # no run, or nothing whole in it
    raise UserError(f"no run in {str(storage)!r} has a whole checkpoint: say which run or checkpoint to serve")


def _actor(place: Path, config: RunConfig, spec: EnvSpec) -> Actor:
    arrays = read_arrays(place / "learner.safetensors")
    weights = {name.removeprefix(ACTOR): torch.from_numpy(a) for name, a in arrays.items() if name.startswith(ACTOR)}
    actor = make_actor(config, spec.obs_dim, spec.action_dim)
    actor.load_state_dict(weights)
    return actor.eval().requires_grad_(False)


def _ensemble(place: Path, manifest: dict[str, Any]) -> Arrays | None:
    if not manifest["reward_version"]:
        return None
    return merge_members([read_arrays(place / name) for name in sorted(manifest["files"]) if name.startswith(ENSEMBLE)])

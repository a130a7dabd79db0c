"""A checkpoint is everything: networks, optimisers, replay with rewards, ensemble, trajectories, counters, generators.

    checkpoints/rows/shard000-....safetensors      row chunks of the replay, shared by a run's checkpoints, written once
                                                   (a checkpoint that stands alone has its own `rows/` inside)
    checkpoints/step-000050000/                    written under another name and renamed when it is whole
        learner.safetensors shard000.safetensors   networks and optimisers; reward column and generator of a shard
        feedback/...                               ensemble and trajectory store
        manifest.json                              counters, what it was made for, every file's digest, and its own

Answers are not here: they are in the answer log, which never goes back.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rayrlhf
from rayrlhf.algorithms.collector import FinishedEpisode, worker_of
from rayrlhf.algorithms.files import (
    Arrays,
    Damaged,
    Files,
    OnDisk,
    Parcel,
    digest,
    read_arrays,
    read_json,
    require_digest,
    seal,
    write_arrays,
    write_json,
)
from rayrlhf.algorithms.progress import Progress
from rayrlhf.algorithms.shards import ChunkEntry, ShardEntry, shard_file
from rayrlhf.config import EnvOptions, RunConfig
from rayrlhf.errors import UserError
from rayrlhf.files import put_back, sync, whole_folder
from rayrlhf.rewards import merge_members

if TYPE_CHECKING:
    from rayrlhf.algorithms.learner import RewardSource
    from rayrlhf.algorithms.loop import PreferenceAlgorithm

FORMAT = 2
MANIFEST = "manifest.json"
ROWS = "rows"
NETWORKS = {"hidden", "layer_norm", "critic_hidden", "critic_blocks", "log_std_min", "log_std_max"}
"""Options without which the parameters of actor and critics mean something else."""
PPO_NETWORKS = {"hidden", "normalize_observations"}
EXPLORATION_FITS: dict[str, Any] = {
    "algorithm": True,
    "env": set(EnvOptions.model_fields) - {"threads"},
    "sac": NETWORKS,
    "ppo": PPO_NETWORKS,
    "explore": {"neighbours"},
}
"""Options that a run must share with the exploration that it starts from."""
STATE_FITS: dict[str, Any] = EXPLORATION_FITS | {
    "mode": True,
    "seed": True,
    # a new pace would owe, or have had, all its updates so far at once
    "sac": NETWORKS | {"updates_per_step", "n_step"},
    "explore": {"neighbours", "seed_steps"},
    "reward": {
        "members",
        "network",
        "hidden",
        "output",
        "normalize_inputs",
        "normalize_rewards",
        "from_",
        "few_shot",
        "adaptation",
    },
    "queries": {"segment_length"},
    "rollout": {"envs_per_actor", "synchronous"},
}
"""Options that a resume cannot change."""


def save(algorithm: "PreferenceAlgorithm", folder: Path, *, shared_rows: bool = False) -> None:
    """Writes a checkpoint to `folder`, which is whole or absent afterwards. UserError where the disk refuses.

    With `shared_rows` the replay's rows go to `rows/` beside `folder`, and those already there are not written again.
    """
    folder = folder.absolute()
    require_replaceable(folder)
    with whole_folder(folder) as aside:
        rows = folder.parent / ROWS if shared_rows else aside / ROWS
        _write(algorithm, aside, rows, shared_rows)
        if shared_rows and rows.is_dir():
            sync(rows)


def require_replaceable(folder: Path) -> None:
    """Refuses to put a checkpoint where something else is."""
    if folder.exists() and not (folder / MANIFEST).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no checkpoint: choose another folder")


def _rows_of(folder: Path, manifest: dict[str, Any]) -> Path:
    return (folder.parent if manifest["shared_rows"] else folder) / ROWS


def _write(algorithm: "PreferenceAlgorithm", folder: Path, rows: Path, shared_rows: bool) -> None:
    shards = _save_shards(algorithm, folder, rows)
    write_arrays(folder / "learner.safetensors", algorithm._on_learners("arrays")[0])
    if algorithm.feedback is not None:
        algorithm.feedback.save(folder / "feedback")
    rollouts = algorithm.rollouts
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != rows)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "rayrlhf": rayrlhf.__version__,
        "made_for": made_for(algorithm.run),
        "progress": asdict(algorithm.progress),
        "looks": {
            "metrics": {name: float(value) for name, value in algorithm._metrics.items()},
            "episodes": [asdict(episode) for episode in algorithm._recent],
        },
        "reward_version": algorithm.feedback.version if algorithm.feedback is not None else 0,
        "runners": {
            str(runner): {"fragments": number, "episodes": rollouts.episodes.get(runner)}
            for runner, number in rollouts.asked().items()
        },
        "shards": shards,
        "shared_rows": shared_rows,
        "files": {str(path.relative_to(folder)): digest(path.read_bytes()) for path in files},
    }
    write_json(folder / MANIFEST, manifest | {"seal": seal(manifest)})


def _save_shards(algorithm: "PreferenceAlgorithm", folder: Path, rows: Path) -> list[ShardEntry]:
    """Only the driver touches the run's folder: learners may be on machines that do not have it."""
    files: Files = OnDisk(folder)
    row_files: Files = OnDisk(rows)
    if not algorithm.learner_group.is_local:
        names = frozenset(path.name for path in rows.glob("*"))
        files, row_files = Parcel(folder), Parcel(rows, there=names)
    shards = []
    for entry, *written in algorithm._on_learners("save_shard", files, row_files):
        for place in written:
            place.unpack()
        shards.append(entry)
    return shards


def _load_shards(
    algorithm: "PreferenceAlgorithm", folder: Path, manifest: dict[str, Any], source: "RewardSource", same_run: bool
) -> None:
    rows, shards = _rows_of(folder, manifest), manifest["shards"]
    files: Files = OnDisk(folder)
    row_files: Files = OnDisk(rows)
    if not algorithm.learner_group.is_local:
        files = Parcel.of(folder, [shard_file(entry["index"]) for entry in shards])
        row_files = Parcel.of(rows, [chunk["name"] for chunk in chunks_of(manifest)])
    algorithm._on_learners("load_shard", files, row_files, shards, source, same_run)


def made_for(run: RunConfig, *, exploration_only: bool = False) -> dict[str, Any]:
    """What a checkpoint must agree about with the run that loads it; less when only its exploration is wanted."""
    wanted = EXPLORATION_FITS if exploration_only else STATE_FITS
    fits = run.model_dump(mode="json", include=wanted)
    del fits["ppo" if run.algorithm == "pebble" else "sac"]
    if run.algorithm == "prefppo":
        fits["explore"].pop("seed_steps", None)
    return fits


def verify(folder: Path, run: RunConfig, *, exploration_only: bool = False, with_replay: bool = True) -> dict[str, Any]:
    """The manifest of a whole checkpoint that fits `run`; without the replay's rows for whoever only acts.

    Raises `Damaged` for one that is not whole, and UserError for a newer or foreign one.
    """
    manifest = _fitting_manifest(folder, run, exploration_only=exploration_only)
    for name, expected in manifest["files"].items():
        require_digest(folder / name, expected)
    for chunk in chunks_of(manifest) if with_replay else ():
        require_digest(_rows_of(folder, manifest) / chunk["name"], chunk["digest"])
    return manifest


def refuse_changes(checkpoints: Path, run: RunConfig) -> None:
    """UserError where the newest checkpoint in a run's folder does not fit `run`, from its manifest alone."""
    for newest in by_age(checkpoints)[:1]:
        with suppress(Damaged):
            _fitting_manifest(newest, run)


def _fitting_manifest(folder: Path, run: RunConfig, *, exploration_only: bool = False) -> dict[str, Any]:
    return require_fit(read_json(folder / MANIFEST), folder, run, exploration_only=exploration_only)


def require_fit(manifest: Any, folder: Path | str, run: RunConfig, *, exploration_only: bool = False) -> dict[str, Any]:
    """The content of a manifest that lies in `folder`, which may be a URL: of this format, undamaged and fit for `run`.

    Raises `Damaged` and UserError as `verify` does.
    """
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found is not None and found != FORMAT:
        writer = manifest.get("rayrlhf", "of its time")
        raise UserError(f"{folder} has checkpoint format {found}, this version reads {FORMAT}; use rayrlhf {writer}")
    if found is None or "made_for" not in manifest:
        raise UserError(f"{folder} is no checkpoint: a run's lie in its folder, as checkpoints/step-...")
    _require_seal(folder, manifest)
    default_run = RunConfig().model_copy(update={"algorithm": run.algorithm})
    wanted, default = (made_for(each, exploration_only=exploration_only) for each in (run, default_run))
    _refuse_mismatch(folder, "", manifest["made_for"], wanted, default)
    return dict(manifest)


def _require_seal(folder: Path | str, manifest: Any) -> None:
    """Everything below can rely on what `_write` wrote."""
    if not isinstance(manifest, dict) or manifest.get("seal") != seal(manifest):
        raise Damaged(f"{folder}/{MANIFEST} is damaged: its content is not what was saved")


def chunks_of(manifest: dict[str, Any]) -> list[ChunkEntry]:
    """The row chunks that a checkpoint consists of, besides its own files."""
    return [chunk for shard in manifest["shards"] for chunk in shard["chunks"]]


def _refuse_mismatch(
    folder: Path | str, prefix: str, saved: dict[str, Any], wanted: dict[str, Any], default: dict[str, Any]
) -> None:
    """An option that came after the checkpoint was at its default then, which leaves things as they were."""
    for key, value in wanted.items():
        if isinstance(value, dict):
            _refuse_mismatch(folder, f"{prefix}{key}.", saved.get(key, {}), value, default[key])
        elif (former := saved.get(key, default[key])) != value:
            name = f"{prefix}{key}".removesuffix("_")  # `from` is a word of Python's
            raise UserError(f"{folder} was made with {name}={former}, this run has {name}={value}: they must agree")


def load(
    algorithm: "PreferenceAlgorithm",
    folder: Path,
    *,
    exploration_only: bool = False,
    manifest: dict[str, Any] | None = None,
) -> None:
    """Restores a checkpoint. With `exploration_only`, only what exploration produced: another run starts from it.

    `manifest` is what `verify` returned for it a moment ago; without one it is verified here.
    """
    folder = folder.absolute()
    if manifest is None:
        manifest = verify(folder, algorithm.run, exploration_only=exploration_only)
    progress = Progress(**manifest["progress"])
    if exploration_only:
        _require_usable_exploration(folder, progress, algorithm.run)
    arrays: Arrays = read_arrays(folder / "learner.safetensors")
    algorithm._on_learners("load_arrays", arrays, not exploration_only)
    source = _source(algorithm.run, progress)
    _load_shards(algorithm, folder, manifest, source, not exploration_only)
    if exploration_only:
        progress = Progress(env_steps=progress.env_steps, borrowed=progress.env_steps)
    else:
        looks = manifest.get("looks", {"metrics": {}, "episodes": []})
        algorithm._metrics = dict(looks["metrics"])
        algorithm._recent.clear()
        algorithm._recent.extend(FinishedEpisode(**episode) for episode in looks["episodes"])
    algorithm.progress = progress
    if algorithm.feedback is not None:
        algorithm.feedback.load(
            folder / "feedback",
            sessions=progress.sessions,
            labels=progress.labels,
            version=manifest["reward_version"],
            trajectories_only=exploration_only,
        )
        # late answers to earlier sessions may have come to the log after the checkpoint
        progress.labels, progress.answers = algorithm.feedback.labels, algorithm.feedback.answers
        if not progress.exploring:
            algorithm._on_learners("load_reward", algorithm.feedback.weights(), manifest["reward_version"])
    _restore_runners(
        algorithm, manifest["runners"], at_boundary=algorithm.run.rollout.synchronous and not exploration_only
    )


def explored_steps(folder: Path, run: RunConfig) -> int:
    """Steps of the exploration in `folder`, whole and fit for `run`; UserError where it is not."""
    manifest = verify(folder, run, exploration_only=True)
    progress = Progress(**manifest["progress"])
    _require_usable_exploration(folder, progress, run)
    drawable = manifest["made_for"]["seed"] == run.seed and moments_file(folder / "feedback").is_file()
    if run.shows_clips and not drawable:
        raise UserError(
            f"{folder} cannot be shown to people, nor to a teacher of yours, who see what was recorded for them with "
            "the same seed: explore anew, without explore.from"
        )
    return progress.env_steps


def _require_usable_exploration(folder: Path, progress: Progress, run: RunConfig) -> None:
    if run.asks and not trajectories_file(folder / "feedback").is_file():
        raise UserError(
            f"{folder} was saved in the mode 'oracle' or with reward.from, which keeps no trajectories: questions need "
            "some"
        )
    steps = progress.env_steps
    if not progress.exploring:
        raise UserError(f"{folder} was made after the exploration phase; explore.from wants what explore.save wrote")
    needed, capacity = run.room_for_exploration(steps), run.sac.replay_capacity
    if run.algorithm == "pebble" and needed > capacity:
        raise UserError(f"{folder} holds {steps} steps: raise sac.replay_capacity={capacity} to at least {needed}")
    if steps >= run.total_steps:
        raise UserError(f"{folder} holds {steps} steps, no fewer than total_steps: raise total_steps")


def _source(run: RunConfig, progress: Progress) -> "RewardSource":
    if progress.exploring:
        return "entropy"
    return "true" if run.mode == "oracle" else "ensemble"


def _restore_runners(algorithm: "PreferenceAlgorithm", saved: dict[str, Any], *, at_boundary: bool) -> None:
    """Goes on counting fragments and episodes: their numbers are never used twice in what a run has stored.

    By worker and by environment: how many runners there are, and whether the driver is one, may have changed; from an
    exploration, also how many environments each has.
    """
    rollouts, per_worker = algorithm.rollouts, algorithm.run.rollout.envs_per_actor
    fragments: dict[int, int] = {}
    begin: dict[int, int] = {}
    for name, state in saved.items():
        if state["episodes"] is None:
            continue
        worker = worker_of(int(name))
        fragments[worker] = max(fragments.get(worker, 0), state["fragments"])
        for env, number in enumerate(state["episodes"], start=worker * len(state["episodes"])):
            # where a run was cut inside episodes, these are lost and the next ones begin
            begin[env] = max(begin.get(env, 0), number + (not at_boundary))
    known = {worker_of(runner): runner for runner in rollouts.runners()}
    for worker in sorted(set(fragments) | {env // per_worker for env in begin}):
        runner = known.get(worker, worker + 1)
        rollouts.numbers[runner] = fragments.get(worker, 0)
        episodes = [begin.get(env, 0) for env in range(worker * per_worker, (worker + 1) * per_worker)]
        if worker in known:
            rollouts.place(runner, episodes)
        else:  # kept for a later resume with more actors again
            rollouts.episodes[runner] = episodes


def seal_of(folder: Path) -> str:
    """What tells a checkpoint from any other, also from a later one of its name. Raises `Damaged`."""
    manifest = read_json(folder / MANIFEST)
    _require_seal(folder, manifest)
    return str(manifest["seal"])


def trajectories_file(feedback: Path) -> Path:
    """Where the newest episodes are, in the folder of the feedback."""
    return feedback / "trajectories.safetensors"


def moments_file(feedback: Path) -> Path:
    """Where it is kept what it takes to draw them, if people are asked."""
    return feedback / "moments.safetensors"


def ensemble_file(feedback: Path, index: int) -> Path:
    """Where the process `index` of the reward ensemble writes its members, in the folder of the feedback."""
    return feedback / f"ensemble{index:03d}.safetensors"


def read_ensemble(feedback: Path) -> Arrays:
    """The state of the whole reward ensemble, over however many processes it was spread."""
    return merge_members([read_arrays(file) for file in feedback.glob("ensemble*.safetensors")])


def copy(folder: Path, checkpoints: Path) -> Path:
    """Puts a checkpoint with shared rows into the `checkpoints` of another run; returns where.

    What is in it never changes, so files are shared by hard links where the file system has them. Raises `Damaged`
    where it is not whole, or is deleted meanwhile.
    """
    manifest = read_json(folder / MANIFEST)
    _require_seal(folder, manifest)
    place = checkpoints / folder.name
    (checkpoints / ROWS).mkdir(parents=True, exist_ok=True)
    try:
        for chunk in chunks_of(manifest):
            _link(folder.parent / ROWS / chunk["name"], checkpoints / ROWS / chunk["name"])
        shutil.copytree(folder, place, copy_function=_link)
    except (FileNotFoundError, shutil.Error) as gone:
        raise Damaged(f"{folder} cannot be copied: {gone}") from gone
    return place


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        pass  # rows that another checkpoint shares
    except OSError:
        shutil.copy2(source, target)


def prune(checkpoints: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints, and row chunks that none of these names."""
    steps = by_age(checkpoints)
    for old in steps[keep:]:
        shutil.rmtree(old)
    _forget_unnamed(checkpoints, steps[:keep])


def put_all_back(checkpoints: Path) -> None:
    """The same for every checkpoint in a run's folder."""
    for old in checkpoints.glob(".step-*.old"):
        put_back(old)


def forget_after(checkpoints: Path, kept: Path | None) -> None:
    """Deletes what a crash left: checkpoints newer than `kept`, half-written ones, and rows nobody names."""
    for step in by_age(checkpoints):
        if kept is None or step.name > kept.name:
            shutil.rmtree(step)
    for leftover in checkpoints.glob(".step-*"):
        shutil.rmtree(leftover)
    _forget_unnamed(checkpoints, by_age(checkpoints))


def _forget_unnamed(checkpoints: Path, steps: list[Path]) -> None:
    named = set()
    for step in steps:
        with suppress(Damaged):
            manifest = read_json(step / MANIFEST)
            _require_seal(step, manifest)
            named |= {chunk["name"] for chunk in chunks_of(manifest)}
    for chunk in (checkpoints / ROWS).glob("*"):
        if chunk.name not in named:
            chunk.unlink()


def by_age(checkpoints: Path) -> list[Path]:
    """The checkpoints in a run's folder, newest first."""
    return sorted(checkpoints.glob("step-*"), reverse=True)


def folder_for(checkpoints: Path, env_steps: int) -> Path:
    """Where the checkpoint after `env_steps` goes."""
    return checkpoints / f"step-{env_steps:012d}"

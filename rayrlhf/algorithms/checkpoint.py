"""A checkpoint is everything: networks, optimisers, replay with rewards, ensemble, trajectories, counters, generators.

    checkpoints/rows/shard000-....safetensors      row chunks of the replay, shared by a run's checkpoints, written once
                                                   (a checkpoint that stands alone has its own `rows/` inside)
    checkpoints/step-000050000/                    written under another name and renamed when it is whole
        learner.safetensors shard000.safetensors   networks and optimisers; reward column and generator of a shard
        feedback/...                               ensemble and trajectory store
        manifest.json                              counters, what it was made for, and every file's size and digest

Answers are not here: they are in the answer log, which never goes back.
"""

import hashlib
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rayrlhf
from rayrlhf.algorithms.files import Arrays, no_space_is_one_line, read_arrays, read_json, write_arrays, write_json
from rayrlhf.algorithms.progress import Progress
from rayrlhf.algorithms.shards import ShardEntry
from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError

if TYPE_CHECKING:
    from rayrlhf.algorithms.pebble import Pebble

FORMAT = 1
MANIFEST = "manifest.json"
ROWS = "rows"


def save(algorithm: "Pebble", folder: Path, *, shared_rows: bool = False) -> None:
    """Writes a checkpoint to `folder`, which is whole or absent afterwards. UserError where the disk refuses.

    With `shared_rows` the replay's rows go to `rows/` beside `folder`, and those already there are not written again.
    """
    folder = folder.absolute()
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with no_space_is_one_line(folder):
            aside.mkdir(parents=True)
            _write(algorithm, aside, folder.parent / ROWS if shared_rows else aside / ROWS, shared_rows)
            if folder.exists():
                shutil.rmtree(folder)
            aside.rename(folder)
            _sync(folder.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _rows_of(folder: Path, manifest: dict[str, Any]) -> Path:
    return (folder.parent if manifest["shared_rows"] else folder) / ROWS


def _write(algorithm: "Pebble", folder: Path, rows: Path, shared_rows: bool) -> None:
    shards: list[ShardEntry] = algorithm._on_learners("save_shard", str(folder), str(rows))
    write_arrays(folder / "learner.safetensors", algorithm._on_learners("arrays")[0])
    if algorithm.feedback is not None:
        algorithm.feedback.save(folder / "feedback")
    rollouts = algorithm.rollouts
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != rows)
    manifest = {
        "format": FORMAT,
        "rayrlhf": rayrlhf.__version__,
        "made_for": made_for(algorithm.run),
        "progress": asdict(algorithm.progress),
        "iteration": algorithm.iteration,
        "reward_version": algorithm.feedback.version if algorithm.feedback is not None else 0,
        "runners": {
            str(runner): {"fragments": number, "episodes": rollouts.episodes.get(runner)}
            for runner, number in rollouts.numbers.items()
        },
        "shards": shards,
        "shared_rows": shared_rows,
        "files": {str(path.relative_to(folder)): _digest(path) for path in files},
    }
    write_json(folder / MANIFEST, manifest)


def made_for(run: RunConfig) -> dict[str, Any]:
    """What a checkpoint must agree about with the run that loads it."""
    return {
        "algorithm": run.algorithm,
        "env": run.env.model_dump(mode="json"),
        "sac": {"hidden": list(run.sac.hidden), "layer_norm": run.sac.layer_norm},
    }


def _digest(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest()}


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def verify(folder: Path, run: RunConfig) -> dict[str, Any]:
    """The manifest of a whole checkpoint that fits `run`; UserError for a damaged, newer or foreign one."""
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        found = manifest.get("format", "none")
        raise UserError(
            f"{folder} has checkpoint format {found}, this version reads {FORMAT}; use rayrlhf {manifest.get('rayrlhf', 'of its time')}"
        )
    _refuse_mismatch(folder, "", manifest["made_for"], made_for(run))
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file() or _digest(path) != expected:
            raise UserError(f"{path} is damaged or missing; use an earlier checkpoint")
    for shard in manifest["shards"]:
        for chunk in shard["chunks"]:
            if not (_rows_of(folder, manifest) / chunk).is_file():
                raise UserError(f"{_rows_of(folder, manifest) / chunk} is missing; use an earlier checkpoint")
    return manifest


def _refuse_mismatch(folder: Path, prefix: str, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if isinstance(value, dict):
            _refuse_mismatch(folder, f"{prefix}{key}.", saved.get(key, {}), value)
        elif saved.get(key) != value:
            raise UserError(
                f"{folder} was made with {prefix}{key}={saved.get(key)}, this run has {prefix}{key}={value}"
            )


def load(algorithm: "Pebble", folder: Path, *, exploration_only: bool = False) -> None:
    """Restores a checkpoint. With `exploration_only`, only what exploration produced: another run starts from it."""
    folder = folder.absolute()
    manifest = verify(folder, algorithm.run)
    progress = Progress(**manifest["progress"])
    if exploration_only and not progress.exploring:
        raise UserError(f"{folder} was made after the exploration phase; explore.from wants what explore.save wrote")
    arrays: Arrays = read_arrays(folder / "learner.safetensors")
    algorithm._on_learners("load_arrays", arrays)
    source = _source(algorithm.run, progress)
    algorithm._on_learners("load_shard", str(folder), str(_rows_of(folder, manifest)), manifest["shards"], source)
    algorithm.progress = progress
    if algorithm.feedback is not None:
        algorithm.feedback.load(
            folder / "feedback",
            sessions=progress.sessions,
            version=manifest["reward_version"],
            trajectories_only=exploration_only,
        )
        if not progress.exploring:
            algorithm._on_learners("load_reward", algorithm.feedback.weights(), manifest["reward_version"])
    if not exploration_only:
        _restore_runners(algorithm, manifest["runners"])


def _source(run: RunConfig, progress: Progress) -> str:
    if progress.exploring:
        return "entropy"
    return "true" if run.mode == "oracle" else "ensemble"


def _restore_runners(algorithm: "Pebble", saved: dict[str, Any]) -> None:
    rollouts, known = algorithm.rollouts, set(algorithm.rollouts.runners())
    at_boundary = algorithm.run.rollout.synchronous
    for name, state in saved.items():
        runner = int(name)
        if runner not in known or state["episodes"] is None:
            continue
        rollouts.numbers[runner] = state["fragments"]
        # where a run was cut inside episodes, these are lost and the next ones begin
        rollouts.episodes[runner] = [number + (not at_boundary) for number in state["episodes"]]
        rollouts.place([runner])


def prune(checkpoints: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints, and row chunks that none of these names."""
    steps = sorted(checkpoints.glob("step-*"))
    for old in steps[:-keep]:
        shutil.rmtree(old)
    named = {
        chunk for step in steps[-keep:] for shard in read_json(step / MANIFEST)["shards"] for chunk in shard["chunks"]
    }
    for chunk in (checkpoints / ROWS).glob("*.safetensors"):
        if chunk.name not in named:
            chunk.unlink()


def newest(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint in `checkpoints`, or none."""
    whole = [step for step in sorted(checkpoints.glob("step-*")) if (step / MANIFEST).is_file()]
    return whole[-1] if whole else None


def folder_for(checkpoints: Path, env_steps: int) -> Path:
    """Where the checkpoint after `env_steps` goes."""
    return checkpoints / f"step-{env_steps:012d}"

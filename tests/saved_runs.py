"""Runs and checkpoints as training leaves them, made without training."""

from dataclasses import asdict
from pathlib import Path

from rayrlhf.algorithms import checkpoint
from rayrlhf.algorithms.files import digest, seal, write_json
from rayrlhf.algorithms.progress import Progress
from rayrlhf.config.load import load_config
from rayrlhf.config.schema import RunConfig
from rayrlhf.remote import Objects
from rayrlhf.tracking import RunDirectory, Tracker

STEPS = (1000, 2000, 3000, 4000)
LABELS = (0, 20, 20, 40)


def config_at(storage_path: str, work_path: Path) -> RunConfig:
    return load_config("toy", ["name=run", f"storage_path={storage_path}", f"work_path={work_path}"])


def new_run(folder: Path) -> RunDirectory:
    return RunDirectory.create(load_config("toy", ["name=run", f"storage_path={folder}"]))


def cut(run: RunDirectory, env_steps: int, rows: str, **changes: object) -> Path:
    """A checkpoint whose replay is in the chunks that the letters of `rows` name."""
    place = checkpoint.folder_for(run.path / "aside", env_steps)
    (place / "feedback").mkdir(parents=True)
    for file in ("learner.safetensors", "feedback/ensemble000.safetensors"):
        (place / file).write_text(f"{file} of {env_steps}")
    (run.checkpoints / "rows").mkdir(exist_ok=True)
    for row in rows:
        (run.checkpoints / "rows" / row).write_text(f"rows {row}")
    contents = {row: (run.checkpoints / "rows" / row).read_bytes() for row in rows}
    chunks = [{"name": row, "begin": 0, "end": 1, "digest": digest(content)} for row, content in contents.items()]
    files = sorted(path for path in place.rglob("*") if path.is_file())
    manifest = {
        "format": checkpoint.FORMAT,
        "made_for": checkpoint.made_for(run.config()),
        "progress": asdict(Progress(env_steps=env_steps)),
        "shards": [{"index": 0, "first": 0, "inserted": 1, "chunks": chunks}],
        "shared_rows": True,
        "files": {str(path.relative_to(place)): digest(path.read_bytes()) for path in files},
        **changes,
    }
    write_json(place / checkpoint.MANIFEST, manifest | {"seal": seal(manifest)})
    return place.rename(checkpoint.folder_for(run.checkpoints, env_steps))


def answer(run: RunDirectory, number: int) -> str:
    """Something in the answer log; its name in the run's folder."""
    path = run.preferences / f"session-{number:05d}-part-0000-0123456789abcdef.parquet"
    path.write_text(f"answers {number}")
    return path.relative_to(run.path).as_posix()


class Noting(Objects):
    """Notes what is written."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.written: list[str] = []

    def write(self, name: str, content: bytes) -> None:
        super().write(name, content)
        self.written.append(name)


def make_run(tmp_path: Path, *overrides: str, success: tuple[float, ...] = (0.0, 0.2, 0.6, 0.9)) -> Path:
    """The folder of a run with an evaluation at each of `STEPS`."""
    run = RunDirectory.create(
        load_config("toy", [f"storage_path={tmp_path}", "tracking.tensorboard=false", *overrides])
    )
    oracle = run.config().mode == "oracle"
    with Tracker(run, run.config().tracking) as tracker:
        for step, labels, rate in zip(STEPS, LABELS, success, strict=True):
            tracker.log(step - 500, {"loss": 1.0, "labels": labels})
            tracker.log(step, {"success_rate": rate, "true_return_mean": 10 * rate, "labels": 0 if oracle else labels})
    return run.path

"""A machine is lost, and the storage for a while: a run at a URL goes on elsewhere as if nothing had been."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from support import SMALL

from rayrlhf.algorithms import checkpoint
from rayrlhf.bench.bucket import KEYS, Storage
from rayrlhf.config.load import load_config
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.remote import local, mirror
from rayrlhf.tracking import RunDirectory
from rayrlhf.training import train

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(280)]

IN_THE_TESTS_RAY = """
import sys
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = False
from rayrlhf.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""`rayrlhf` that joins a Ray of this machine's own, which listens on loopback alone."""
OPTIONS = [*SMALL, "--name=run", "--checkpoint.interval=200", "--rollout.synchronous=true", "--evaluation.videos=0"]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def whole(storage: Storage, path: str) -> list[str]:
    """The checkpoints at a URL."""
    return sorted(name.split("/")[1] for name in storage.names(f"{path}/run") if name.endswith("/manifest.json"))


def rows_of(storage: Storage, steps: list[str]) -> set[str]:
    """The row chunks that checkpoints name."""
    manifests = [json.loads(storage.read(f"unbroken/run/checkpoints/{step}/manifest.json")) for step in steps]
    return {chunk["name"] for saved in manifests for chunk in checkpoint.chunks_of(saved)}


def answers(where: str) -> dict[str, str]:
    return {answer.query_id: answer.choice for _, said in PreferenceDataset(where).read() for answer in said}


class Lines(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture(scope="module")
def unbroken(
    ray_session: None, s3_server: Storage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunDirectory, list[str]]]:
    """A run on one machine, and what it said; after its first checkpoint the storage is away until its last but one."""
    folder = tmp_path_factory.mktemp("unbroken")
    lines, logger = Lines(), logging.getLogger(mirror.__name__)
    logger.addHandler(lines)

    def cut() -> None:
        wait_for(lambda: whole(s3_server, "unbroken"))
        s3_server.line.cut()
        wait_for(lambda: lines.said and (folder / "run" / "checkpoints" / "step-000000000800").is_dir())
        s3_server.line.mend()

    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setattr(mirror, "PAUSES", (0.1, 0.2))
        cutting = threading.Thread(target=cut)
        cutting.start()
        storage_path = f"--storage_path={s3_server.url('unbroken')}"
        train(load_config("toy", [*OPTIONS, storage_path, f"--work_path={folder}"]), progress=False)
        cutting.join()
    logger.removeHandler(lines)
    yield RunDirectory.open(folder / "run"), lines.said


def test_a_storage_that_was_away_has_everything_in_the_end(
    unbroken: tuple[RunDirectory, list[str]], storage: Storage
) -> None:
    run, said = unbroken
    assert len(said) == 2 and "training goes on" in said[0] and said[1].endswith("is back")
    saved = whole(storage, "unbroken")
    assert saved[-1] == "step-000000001000" and len(saved) == 2, "what was made meanwhile may be passed over"
    there = storage.names("unbroken/run/checkpoints")
    assert {name.removeprefix("rows/") for name in there if name.startswith("rows/")} == rows_of(storage, saved)
    for file in ("config.yaml", "manifest.json", "metrics.jsonl", "summary.json"):
        assert storage.read(f"unbroken/run/{file}") == (run.path / file).read_bytes()
    assert answers(storage.url("unbroken/run/preferences")) == answers(str(run.preferences))
    assert len(answers(str(run.preferences))) == 12


def untimed(run: RunDirectory) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in run.metrics()]


def test_kill_minus_nine_and_no_disk_any_more_equals_a_run_never_killed(
    unbroken: tuple[RunDirectory, list[str]], storage: Storage, tmp_path: Path
) -> None:
    """Killed after its second checkpoint; another machine has nothing but the URL. Equal bit for bit."""
    work = tmp_path / "machine"
    options = [*OPTIONS, f"--storage_path={storage.url('broken')}", f"--work_path={work}"]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_THE_TESTS_RAY, "train", "toy", *options],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(whole(storage, "broken")) >= 2 or process.poll() is not None)
    finally:
        process.kill()
        process.wait()
    assert not (work / "run" / "summary.json").exists(), "it had ended before it was killed"
    before = answers(storage.url("broken/run/preferences"))
    learnt = checkpoint.by_age(work / "run" / "checkpoints")[0]
    assert json.loads((learnt / "manifest.json").read_text())["progress"]["answers"] <= len(before)
    shutil.rmtree(work)
    lease = json.loads(storage.read("broken/run/running.json"))
    storage.write("broken/run/running.json", json.dumps(lease | {"renewed": lease["renewed"] - 1000}).encode())

    url, first = storage.url("broken/run"), unbroken[0]
    config = load_config(str(local(url, with_checkpoint=False)), [f"--work_path={tmp_path / 'other'}"])
    train(config, resume=url, progress=False)
    run = RunDirectory.open(tmp_path / "other" / "run")
    assert before.items() <= answers(str(run.preferences)).items()
    assert answers(str(run.preferences)) == answers(str(first.preferences))
    last = [checkpoint.by_age(each.checkpoints)[0] for each in (first, run)]
    assert last[0].name == last[1].name
    for file in ("learner.safetensors", "shard000.safetensors", "feedback/ensemble000.safetensors"):
        assert (last[0] / file).read_bytes() == (last[1] / file).read_bytes(), file
    assert untimed(first) == untimed(run)
    summaries = [each.summary() or {} for each in (first, run)]
    for name in summaries[0].keys() - {"wall_seconds"}:
        assert summaries[0][name] == summaries[1][name], name
    assert whole(storage, "broken")[-1] == whole(storage, "unbroken")[-1] == last[1].name

"""`rayrlhf label` as a process of its own, with real clips."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
import pytest
from listening import addresses_of

from rayrlhf.config import QueueOptions
from rayrlhf.envs.video import browser_clip, write_video
from rayrlhf.errors import UserError
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.pairs import Pair, read_pairs
from rayrlhf.preferences.store import Database, PreferenceStore, Question, RefusedError, Reports, Run
from rayrlhf.serving.labelling import Place
from rayrlhf.serving.pairs import ask_pairs, labels_in, rules_for, warning_of_lengths, write_labels

pytestmark = pytest.mark.timeout(300)


def grey(value: int) -> Iterator[np.ndarray]:
    return (np.full((64, 64, 3), value, np.uint8) for _ in range(10))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pair p0 to p3: the left one is dark."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number in range(4):
        write_video(folder / f"p{number}_left.mp4", grey(10 + number), 5.0)
        write_video(folder / f"p{number}_right.mp4", grey(200 + number), 5.0)
    return folder


@contextmanager
def label(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The verb, and what it said until it served."""
    command = [sys.executable, "-m", "rayrlhf", "label", "--storage-path", str(folder), "--port", "0", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    said = []
    try:
        while line := process.stdout.readline():
            said.append(line.strip())
            if line.startswith(("me ", "ben ")):
                break
        yield process, said
    finally:
        process.kill()
        process.wait()


def client_of(line: str) -> QueueClient:
    url, _, fragment = line.split()[-1].partition("/#token=")
    return QueueClient(url, fragment.split("&")[0], patience=30)


def darker(client: QueueClient, left: str, right: str) -> str:
    means = []
    for name in (left, right):
        with av.open(io.BytesIO(client.clip(name))) as container:
            means.append(next(container.decode(video=0)).to_ndarray(format="rgb24").mean())
    return "left" if means[0] < means[1] else "right"


def test_pairs_of_clips_are_answered_and_written(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    with label(folder, "--pairs", str(pairs), "--once", "--json", "--queue.settle-seconds", "0") as (process, said):
        assert addresses_of(process.pid) == {"127.0.0.1"}
        with client_of(said[-1]) as person:
            for question in person.lease("pairs", 4):
                person.answer(question.lease, darker(person, question.left_clip, question.right_clip))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1]) == {"labels": str(folder / "labels.jsonl"), "pairs": 4, "decided": 4}
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert [(row["id"], row["choice"], row["target"]) for row in rows] == [(f"p{i}", "left", 0.0) for i in range(4)]
    assert (folder / "links.json").stat().st_mode & 0o077 == 0, "tokens are for their owner's eyes"


def ask(folder: Path, where: Path, **options: object) -> tuple[PreferenceStore, dict[str, Pair]]:
    """Asks the pairs of `where` in the queue in `folder`, as the verb does."""
    folder.mkdir(exist_ok=True)
    (folder / "clips").mkdir(exist_ok=True)
    place, rules = Place.of_folder(folder), QueueOptions(settle_seconds=0, **options)
    asked = ask_pairs(place, where, where.stem, read_pairs(where), rules, sentence="Which?", guidelines="")
    return PreferenceStore(Database(place.database)), asked


def asked_of(store: PreferenceStore, name: str, person: str = "anna") -> list[str]:
    """The questions that somebody gets."""
    return sorted(lease.query_id for lease in store.lease(name, person, 10))


def test_another_file_of_the_same_name_is_refused(pairs: Path, tmp_path: Path) -> None:
    store, asked = ask(tmp_path / "labels", pairs)
    other = tmp_path / "elsewhere" / "pairs"
    shutil.copytree(pairs, other)
    with pytest.raises(UserError, match="asks of another 'pairs' already: rename pairs, or give another --storage"):
        ask(tmp_path / "labels", other)
    (tmp_path / "link").symlink_to(tmp_path)
    ask(tmp_path / "labels", tmp_path / "link" / "pairs")  # the same one
    assert asked_of(store, "pairs") == sorted(asked)


def test_what_is_not_among_the_pairs_any_more_is_asked_no_longer(pairs: Path, tmp_path: Path) -> None:
    """A clip that was made anew, a pair that was taken out, a test; what was said stays, and they may come back."""
    folder, rules = tmp_path / "labels", {"gold_every": 2, "lease_seconds": 2.0}
    listed = tmp_path / "list.jsonl"
    rows = [{"id": f"p{i}", **{side: f"pairs/p{i}_{side}.mp4" for side in ("left", "right")}} for i in range(4)]
    rows[3]["gold"] = "left"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    listed.write_text(text)
    store, before = ask(folder, listed, **rules)
    decided, again, taken_out, test = before
    first = store.lease("list", "anna")[0]
    assert first.query_id == decided
    store.answer("anna", first.id, "left", key="one")
    assert {again, taken_out, test} == set(asked_of(store, "list"))
    write_video(pairs / "p1_left.mp4", grey(90), 5.0)
    listed.write_text(text.splitlines(keepends=True)[1])
    _, now = ask(folder, listed, **rules)
    assert list(now) != [again]
    for person in ("anna", "ben"):
        time.sleep(2.1)  # the leases end
        assert asked_of(store, "list", person) == list(now)
    assert [item.query_id for item in Reports(Database(str(folder / "queue.sqlite"))).browse("list")] == [decided]
    listed.write_text(text)
    time.sleep(2.1)
    ask(folder, listed, **rules)
    assert set(asked_of(store, "list")) == {*now, taken_out, test}


def test_a_queue_from_before_identities_goes_on(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    store = PreferenceStore(Database(str(tmp_path / "labels" / "queue.sqlite")))
    store.register(Run("pairs", "pairs", "Which?"))
    store.enqueue("pairs", [Question("pairs/another~0", 0, 0)])
    _, asked = ask(tmp_path / "labels", pairs)
    assert asked_of(store, "pairs") == sorted(asked)
    with pytest.raises(RefusedError):
        store.register(Run("pairs", "pairs", "Which?", identity="another"), adopting=True)


def test_labels_that_are_there_stay(tmp_path: Path) -> None:
    file, reports = tmp_path / "labels.jsonl", Reports(Database(str(tmp_path / "queue.sqlite")))
    before = [{"id": "old", "question": "other/old~1", "choice": "left"}]
    assert labels_in(file) == []
    assert write_labels(file, reports, "pairs", {}, before) == 0
    assert labels_in(file) == before
    for other in ('{"id": "old", "choice": "left"}', "[1]", "a,b", "\udcff"):
        file.write_text(other, errors="surrogateescape")
        with pytest.raises(UserError, match="holds no labels of pairs"):
            labels_in(file)


def test_links_and_answers_outlive_a_kill(pairs: Path, tmp_path: Path) -> None:
    words = ("--pairs", str(pairs), "--names", "anna", "ben", "--queue.settle-seconds", "0")
    with label(tmp_path / "labels", *words) as (process, said):
        with client_of(said[-1]) as ben:
            ben.answer(ben.lease("pairs")[0].lease, "equal")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with label(tmp_path / "labels", *words) as (process, again):
        assert [line.partition("#")[2] for line in again] == [line.partition("#")[2] for line in said]
        with client_of(again[-1]) as ben:
            assert ben.runs()[0].mine == 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, "labels.jsonl" in out) == (0, True), err


def test_a_taken_port_and_names_are_one_line(pairs: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for words, message in (
            (["--port", str(taken.getsockname()[1])], "choose another port"),
            (["--names", "admin"], "the queue's own name"),
            (["--once"], "--once goes with --pairs"),
            (["--run", str(pairs), "--pairs", str(pairs)], "two things"),
            (["--run", str(pairs)], "not a run's folder"),
            (["--pairs", str(tmp_path / "none")], "there is no"),
        ):
            command = [sys.executable, "-m", "rayrlhf", "label", *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
            lines = [line for line in done.stderr.splitlines() if "DISPLAY" not in line and "warnings.warn" not in line]
            assert done.returncode == 2, done.stderr
            assert len(lines) == 1 and message in lines[0], done.stderr


def test_known_answers_are_asked_by_themselves(tmp_path: Path) -> None:
    plain, gold = Pair("a", tmp_path, tmp_path), Pair("b", tmp_path, tmp_path, "left")
    chosen = QueueOptions(overlap=2)
    assert rules_for([plain], chosen) == chosen
    assert rules_for([plain, gold], chosen) == QueueOptions(overlap=2, gold_every=10)
    assert rules_for([plain, gold], QueueOptions(gold_every=3)).gold_every == 3


def test_clips_of_unequal_length_are_named_in_one_line(pairs: Path) -> None:
    found = read_pairs(pairs)
    assert warning_of_lengths(found) is None
    for name, count in (("p1_right", 7), ("p2_left", 9), ("p3_left", 12)):  # of ten frames: nine are near enough
        write_video(pairs / f"{name}.mp4", islice(cycle(grey(30)), count), 5.0)
    said = "warning: in 2 of 4 pairs one clip is more than 10 % shorter than the other, first in 'p1'"
    assert warning_of_lengths(found) == f"{said} (left 2.0 s, right 1.4 s)"


def test_clips_of_other_kinds_are_drawn_anew(tmp_path: Path, pairs: Path) -> None:
    as_it_is = pairs / "p0_left.mp4"
    assert browser_clip(as_it_is) == as_it_is.read_bytes()
    other = tmp_path / "clip.avi"
    with av.open(str(other), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in grey(120):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "again.mp4").write_bytes(browser_clip(other))
    with av.open(str(tmp_path / "again.mp4")) as container:
        found = container.streams.video[0]
        assert (found.codec_context.name, found.codec_context.pix_fmt, found.frames) == ("h264", "yuv420p", 10)
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no video"):
        browser_clip(tmp_path / "none.mp4")

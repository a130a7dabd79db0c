"""The answer log: exact round trips, duplicates, merging, and files that are whole or absent whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.segments import Queries, Segments, query_id
from rayrlhf.preferences.table import SCHEMA, Record

STEPS, OBS, ACTION = 4, 3, 2


def segments(rng: np.random.Generator, count: int, steps: int = STEPS) -> Segments:
    return Segments(
        obs=(rng.normal(size=(count, steps, OBS)) * 10.0 ** rng.integers(-38, 38)).astype(np.float32),
        action=rng.uniform(-1, 1, size=(count, steps, ACTION)).astype(np.float32),
        reward=rng.normal(size=(count, steps)).astype(np.float32),
        success=rng.random((count, steps)) < 0.5,
        episode=rng.integers(0, 2**62, count),
        start=rng.integers(0, 500, count),
    )


def session(number: int, count: int = 3, *, run: str = "run", seed: int = 0, steps: int = STEPS) -> Queries:
    rng = np.random.default_rng([seed, number, count])
    ids = tuple(query_id(run, number, i) for i in range(count))
    sides = segments(rng, count, steps), segments(rng, count, steps)
    said = tuple(f"do {i % 2}" for i in range(count)) if number % 2 else ()
    return Queries(ids, number, *sides, rng.normal() / 3, said)


def answers_to(queries: Queries, choice: str = "left", annotator: str = "oracle") -> list[Answer]:
    return [Answer(key, choice, annotator, seconds=0.1, replays=2) for key in queries.ids]  # type: ignore[arg-type]


def assert_same_queries(one: Queries, other: Queries) -> None:
    for name in ("ids", "session", "typical_return", "instructions"):
        assert getattr(one, name) == getattr(other, name)
    for left, right in ((one.left, other.left), (one.right, other.right)):
        for field in fields(Segments):
            first, second = getattr(left, field.name), getattr(right, field.name)
            if second is None:
                assert first is None
                continue
            assert first.dtype == second.dtype
            assert first.flags.writeable and first.flags.c_contiguous
            np.testing.assert_array_equal(first, second)


def assert_same(one: list[Record], other: list[Record]) -> None:
    assert len(one) == len(other)
    for (queries, answers), (expected, expected_answers) in zip(one, other, strict=True):
        assert_same_queries(queries, expected)
        assert answers == expected_answers


@pytest.fixture
def dataset(tmp_path: Path) -> PreferenceDataset:
    return PreferenceDataset(tmp_path / "preferences")


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**20), st.lists(st.integers(0, 4), max_size=8))
@settings(max_examples=40, deadline=None)
def test_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory, count: int, steps: int, seed: int, answered: list[int]
) -> None:
    dataset = PreferenceDataset(tmp_path_factory.mktemp("round"))
    queries = session(7, count, seed=seed, steps=steps)
    answers = [Answer(queries.ids[i % count], "skip", f"a{k}", k / 7, k) for k, i in enumerate(sorted(answered))]
    dataset.append(queries, answers)
    stored, said = dataset.read_session(7)
    assert_same_queries(stored, queries)
    assert sorted(said, key=lambda a: a.annotator) == sorted(answers, key=lambda a: a.annotator)


@pytest.mark.parametrize("margin", [1, 3])
def test_context_is_kept_and_mixes_with_what_has_none(dataset: PreferenceDataset, margin: int) -> None:
    queries, other, rng = session(0, 4), session(1, 2), np.random.default_rng(0)
    context = rng.normal(size=(4, 2 * margin, OBS + ACTION)).astype(np.float32)
    context[2, :1] = np.nan
    wide = replace(queries, left=replace(queries.left, context=context), right=replace(queries.right, context=context))
    dataset.append(wide, answers_to(wide))
    dataset.append(other, answers_to(other))
    assert_same_queries(dataset.read_session(0)[0], wide)
    assert dataset.read_session(1)[0].left.context is None
    both = Segments.concatenate([other.left, wide.left])
    assert both.margin == margin and np.isnan(both.context[:2]).all()
    np.testing.assert_array_equal(both.take(np.array([5, 0])).context[0], context[3])
    np.testing.assert_array_equal(both.with_margin(margin + 2)[2:, 2:-2], context)
    np.testing.assert_array_equal(both.with_margin(1)[3], context[1][[margin - 1, margin]])


def test_a_file_of_before_there_was_context_is_read(dataset: PreferenceDataset, tmp_path: Path) -> None:
    queries = session(3)
    dataset.append(queries, answers_to(queries))
    [path] = (tmp_path / "preferences").iterdir()
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["left_context", "right_context"]), path)
    content = path.read_bytes()
    path.rename(path.with_name(f"session-00003-part-0000-{blake2b(content, digest_size=8).hexdigest()}.parquet"))
    assert_same_queries(PreferenceDataset(tmp_path / "preferences").read_session(3)[0], queries)


def test_sessions_in_order_and_parts_united(dataset: PreferenceDataset) -> None:
    assert (dataset.sessions(), dataset.read(), dataset.size_bytes) == ([], [], 0)
    late, early = session(11, 5), session(2)
    dataset.append(late.take(np.array([0, 1])), answers_to(late)[:2])
    dataset.append(early, answers_to(early))
    dataset.append(late.take(np.array([2, 3, 4])), answers_to(late)[2:])
    assert dataset.sessions() == [2, 11]
    assert_same(PreferenceDataset(dataset.where).read(), [(early, answers_to(early)), (late, answers_to(late))])


def test_the_first_answer_of_an_annotator_and_the_first_wording_are_kept(dataset: PreferenceDataset) -> None:
    queries, other_wording = session(0, seed=1), session(0, seed=2)
    dataset.append(queries, answers_to(queries, "left")[:1])
    dataset.append(other_wording, [*answers_to(queries, "right"), *answers_to(queries, "equal", "eva")])
    stored, answers = dataset.read_session(0)
    assert_same_queries(stored, queries)
    said = {(answer.query_id, answer.annotator): answer.choice for answer in answers}
    assert len(answers) == len(said) == 6
    assert [said[key, "oracle"] for key in queries.ids] == ["left", "right", "right"]
    assert {said[key, "eva"] for key in queries.ids} == {"equal"}


def test_a_repeated_append_changes_nothing(dataset: PreferenceDataset) -> None:
    queries = session(0)
    dataset.append(queries, answers_to(queries))
    size = dataset.size_bytes
    PreferenceDataset(dataset.where).append(queries, answers_to(queries))
    assert dataset.size_bytes == size


def spoilt(queries: Queries, **columns: np.ndarray | float) -> Queries:
    """`queries` whose second one shows another value at the first entry of these columns of its left segment."""
    left = {name: getattr(queries.left, name).copy() for name in columns}
    for name, value in columns.items():
        left[name][1].flat[0] = value
    return replace(queries, left=replace(queries.left, **left))


@pytest.mark.parametrize(
    ("malformed", "problem"),
    [
        ((spoilt(session(0), obs=np.nan), []), "query run/00000/00001: left_obs holds a missing or infinite value"),
        ((spoilt(session(0), reward=np.inf), []), "query run/00000/00001: left_reward holds a missing or infinite"),
        ((spoilt(session(0), action=2.0), []), r"query run/00000/00001: left_action lies outside \[-1, 1\]"),
        ((replace(session(0), typical_return=np.nan), []), "query run/00000/00000: typical_return is missing"),
        ((replace(session(0), session=-1), []), "query run/00000/00000: session is negative"),
        ((replace(session(0), ids=("a", "", "c")), []), "query : query_id is empty"),
    ],
)
def test_what_reading_would_refuse_is_not_written(dataset: PreferenceDataset, malformed: Record, problem: str) -> None:
    kept = session(0, 2, seed=1)
    dataset.append(kept, answers_to(kept))
    with pytest.raises(UserError, match=f"not stored in .*preferences, {problem}"):
        dataset.append(*malformed)
    assert_same(PreferenceDataset(dataset.where).read(), [(kept, answers_to(kept))])


def test_a_refused_append_leaves_no_mark(dataset: PreferenceDataset) -> None:
    with pytest.raises(UserError, match="not stored"):
        dataset.append(spoilt(session(0, steps=STEPS + 1), obs=np.nan), [])
    dataset.append(session(0), [])
    assert dataset.sessions() == [0]


def test_two_writers_do_not_overwrite_each_other(dataset: PreferenceDataset) -> None:
    queries, second = session(0, 4), PreferenceDataset(dataset.where)
    assert dataset.sessions() == second.sessions() == []
    halves = [queries.take(np.array(index)) for index in ([0, 1], [2, 3])]
    for writer, half in zip((dataset, second), halves, strict=True):
        writer.append(half, answers_to(half))
    assert dataset.read_session(0)[0].ids == queries.ids


def test_misuse_is_refused(dataset: PreferenceDataset) -> None:
    queries = session(0)
    with pytest.raises(ValueError, match="not there"):
        dataset.append(queries, [Answer("elsewhere", "left", "oracle")])
    with pytest.raises(UserError, match="no session 4"):
        dataset.read_session(4)
    dataset.append(queries, [])
    with pytest.raises(UserError, match=r"session 0 .*\(4, 3, 2\), not \(5, 3, 2\)"):
        PreferenceDataset(dataset.where).append(session(0, steps=5), [])
    with pytest.raises(UserError, match="cannot open nowhere://x"):
        PreferenceDataset("nowhere://x")


def test_a_uri_and_a_relative_path_name_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    queries = session(0)
    PreferenceDataset("runs/x").append(queries, answers_to(queries))
    assert_same(PreferenceDataset(f"file://{tmp_path}/runs/x/").read(), [(queries, answers_to(queries))])


# --- merging ---


def test_merging_adds_what_is_new_and_nothing_twice(tmp_path: Path) -> None:
    one, other = PreferenceDataset(tmp_path / "one"), PreferenceDataset(tmp_path / "other")
    shared, own = session(0, 4), session(1)
    one.append(shared, answers_to(shared)[:2])
    other.append(shared, [*answers_to(shared, "right"), *answers_to(shared, "skip", "eva")])
    other.append(own, answers_to(own))
    assert one.merge_from(other) == 2 + 4 + 3
    said = {(answer.query_id, answer.annotator): answer.choice for answer in one.read_session(0)[1]}
    assert [said[key, "oracle"] for key in shared.ids] == ["left", "left", "right", "right"]
    assert_same(one.read()[1:], [(own, answers_to(own))])
    before = one.size_bytes
    assert one.merge_from(other) == 0
    assert one.size_bytes == before


def test_merging_another_run_keeps_both_runs_sessions_apart(tmp_path: Path) -> None:
    one, other = PreferenceDataset(tmp_path / "one"), PreferenceDataset(tmp_path / "other")
    mine, theirs, long = session(0, run="a"), session(0, run="b", seed=1), session(1, run="b", steps=6)
    one.append(mine, answers_to(mine))
    for queries in (theirs, long):
        other.append(queries, answers_to(queries))
    one.merge_from(other)
    moved = replace(theirs, session=1)
    moved_long = replace(long, session=2)
    expected = [(queries, answers_to(queries)) for queries in (mine, moved, moved_long)]
    assert_same(one.read(), expected)
    assert one.merge_from(other) == 0
    assert_same(one.read(), expected)


def test_merging_a_run_of_the_same_name_keeps_every_answer_with_its_own_segments(tmp_path: Path) -> None:
    """Their ids are the same and stand for other segments; the default name is the same on every machine."""
    one, other = PreferenceDataset(tmp_path / "one"), PreferenceDataset(tmp_path / "other")
    mine = session(0)
    theirs = replace(session(0, seed=1), typical_return=mine.typical_return)
    one.append(mine, answers_to(mine, "left"))
    other.append(theirs, answers_to(theirs, "right"))
    assert one.merge_from(other) == len(theirs)
    ((queries, said),) = one.read()
    assert len(set(queries.ids)) == len(mine) + len(theirs)
    labels = labels_from(queries, said)
    shown = np.concatenate([mine.left.obs, theirs.left.obs])
    np.testing.assert_array_equal(labels.left.obs, shown)
    np.testing.assert_array_equal(labels.target, [0.0] * len(mine) + [1.0] * len(theirs))
    assert one.merge_from(other) == 0


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sets(st.integers(0, 3), min_size=1), st.sampled_from("ab")), max_size=6)
)
@settings(max_examples=25, deadline=None)
def test_merging_equals_reading_all_files_together(
    tmp_path_factory: pytest.TempPathFactory, appends: list[tuple[int, set[int], str]]
) -> None:
    """Whatever was appended where, a merge of two datasets knows each query and each answer once."""
    folder = tmp_path_factory.mktemp("merge")
    halves = [PreferenceDataset(folder / "0"), PreferenceDataset(folder / "1")]
    known: set[tuple[str, str]] = set()
    for k, (number, rows, annotator) in enumerate(appends):
        queries = session(number, 4).take(np.array(sorted(rows)))
        halves[k % 2].append(queries, answers_to(queries, annotator=annotator))
        known |= {(key, annotator) for key in queries.ids}
    halves[0].merge_from(halves[1])
    merged = halves[0].read()
    found = [(answer.query_id, answer.annotator) for _, answers in merged for answer in answers]
    assert sorted(found) == sorted(known)
    for queries, _ in merged:
        whole = session(queries.session, 4)
        assert_same_queries(queries, whole.take(np.array([whole.ids.index(key) for key in queries.ids])))


# --- damage ---


def only_file(dataset: PreferenceDataset) -> Path:
    (path,) = Path(dataset.where).glob("*.parquet")
    return path


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_named(dataset: PreferenceDataset, damage: str) -> None:
    queries = session(0)
    dataset.append(queries, answers_to(queries))
    path = only_file(dataset)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flip": bytes(content), "cut": path.read_bytes()[:-100], "empty": b""}[damage])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        PreferenceDataset(dataset.where).read()


def test_a_foreign_file_in_the_folder_is_named(dataset: PreferenceDataset) -> None:
    queries = session(0)
    dataset.append(queries, [])
    only_file(dataset).rename(Path(dataset.where) / "mine.parquet")
    with pytest.raises(UserError, match=r"mine\.parquet is not of this dataset"):
        dataset.sessions()


def test_a_file_of_another_session_is_named(dataset: PreferenceDataset) -> None:
    dataset.append(session(0), [])
    path = only_file(dataset)
    path.rename(path.with_name(path.name.replace("session-00000", "session-00003")))
    with pytest.raises(UserError, match="does not belong to session 3"):
        dataset.read()


@pytest.mark.parametrize(
    ("metadata", "message"), [({b"rayrlhf.preferences.version": b"2"}, "upgrade rayrlhf"), ({}, "no preference file")]
)
def test_another_format_is_refused(dataset: PreferenceDataset, metadata: dict[bytes, bytes], message: str) -> None:
    dataset.append(session(0), [])
    path = only_file(dataset)
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), sink)
    content = sink.getvalue().to_pybytes()
    path.unlink()
    digest = blake2b(content, digest_size=8).hexdigest()
    path.with_name(f"session-00000-part-0000-{digest}.parquet").write_bytes(content)
    with pytest.raises(UserError, match=message):
        dataset.read()


def test_other_tools_can_read_the_files(dataset: PreferenceDataset) -> None:
    queries = session(3)
    dataset.append(queries, answers_to(queries))
    table = pq.read_table(only_file(dataset))
    assert table.schema.names == SCHEMA.names
    assert table["left_obs"][1].as_py() == queries.left.obs[1].ravel().tolist()
    assert table["answers"][0].as_py() == [{"choice": "left", "annotator": "oracle", "seconds": 0.1, "replays": 2}]


# --- crashes and full disks, with real processes ---

WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_dataset import PreferenceDataset, answers_to, session
dataset = PreferenceDataset({folder!r})
for number in range({first}, {first} + 100_000):
    queries = session(number, 40)
    dataset.append(queries, answers_to(queries))
    print(number, flush=True)
"""


def writer(folder: Path, first: int) -> list[str]:
    return [sys.executable, "-c", WRITER.format(tests=str(Path(__file__).parent), folder=str(folder), first=first)]


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    folder, rng, acknowledged = tmp_path / "preferences", random.Random(0), []
    for trial in range(4):
        with subprocess.Popen(writer(folder, trial * 100_000), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged.append(int(process.stdout.readline()))
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    dataset = PreferenceDataset(folder)
    stored = dataset.sessions()
    assert len(acknowledged) > 8, "the writers hardly ran"
    assert set(acknowledged) <= set(stored)
    assert len(stored) <= len(acknowledged) + 4, "at most one append per kill was made but not acknowledged"
    for number in stored:
        expected = session(number, 40)
        queries, answers = dataset.read_session(number)
        assert_same_queries(queries, expected)
        assert answers == answers_to(expected)


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from rayrlhf.errors import UserError
try:
    dataset.append(session(1, 400), [])
except UserError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_earlier_files(tmp_path: Path) -> None:
    dataset, queries = PreferenceDataset(tmp_path / "preferences"), session(0)
    dataset.append(queries, answers_to(queries))
    before = sorted(os.listdir(dataset.where))
    script = (
        WRITER.format(tests=str(Path(__file__).parent), folder=dataset.where, first=0).split("for number")[0] + FULL
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "session-00001" in done.stdout and "file too large; earlier files are unharmed" in done.stdout
    assert sorted(os.listdir(dataset.where)) == before
    assert_same(dataset.read(), [(queries, answers_to(queries))])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permission denied"):
        PreferenceDataset(tmp_path / "x").append(session(0), [])


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not a folder")
    with pytest.raises(UserError, match=f"cannot .* {tmp_path}/x"):
        PreferenceDataset(tmp_path / "x").append(session(0), [])

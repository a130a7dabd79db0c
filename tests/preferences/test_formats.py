"""Preference data as others keep it: what goes out comes back bit for bit, and what is malformed stops everything."""

import csv
import json
import math
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Answer
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.exchange import export_file, import_file, info
from rayrlhf.preferences.formats.files import export_any, import_any
from rayrlhf.preferences.segments import Queries, Segments

FINITE = {"allow_nan": False, "allow_infinity": False, "width": 32}


def same(one: PreferenceDataset, other: PreferenceDataset) -> None:
    """The same queries, in whatever session, and the same answers, to the last bit."""

    def rows(dataset: PreferenceDataset) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for queries, answers in dataset.read():
            for i, key in enumerate(queries.ids):
                columns = [(s, f.name) for s in ("left", "right") for f in fields(Segments) if f.name != "context"]
                shown = [getattr(getattr(queries, side), name)[i] for side, name in columns]
                said = sorted((a for a in answers if a.query_id == key), key=str)
                sentence = queries.instructions[i] if queries.instructions else ""
                bits = [(value.dtype, value.shape, value.tobytes()) for value in shown]
                found[key] = (queries.session, queries.typical_return, sentence, bits, said)
        return found

    assert rows(one) == rows(other)


@st.composite
def datasets(draw: st.DrawFn, *, decisive: bool = False) -> list[tuple[Queries, list[Answer]]]:
    """One or two sessions of one shape, with all that may be said of a question, some without a true reward."""
    steps, obs, action = (draw(st.integers(1, 4)) for _ in range(3))
    records = []
    for number in range(draw(st.integers(1, 2))):
        count = draw(st.integers(1, 4))
        rewarded = draw(st.booleans())

        def side(count: int = count, rewarded: bool = rewarded) -> Segments:
            reward = draw(npst.arrays(np.float32, (count, steps), elements=st.floats(**FINITE)))
            return Segments(
                draw(npst.arrays(np.float32, (count, steps, obs), elements=st.floats(**FINITE))),
                draw(npst.arrays(np.float32, (count, steps, action), elements=st.floats(-1, 1, width=32))),
                reward if rewarded else np.full_like(reward, np.nan),
                draw(npst.arrays(np.bool_, (count, steps))),
                draw(npst.arrays(np.int64, count, elements=st.integers(0, 2**62))),
                draw(npst.arrays(np.int64, count, elements=st.integers(0, 9))),
            )

        said = tuple(draw(st.lists(st.text(max_size=5), min_size=count, max_size=count)))
        ids = tuple(f"demo/{number}/{i}" for i in range(count))
        queries = Queries(ids, number, side(), side(), draw(st.floats(0, 9)), said if any(said) else ())
        choices = ["left", "right"] if decisive else ["left", "right", "equal", "skip"]
        least = 1 if decisive else 0
        answers = [
            Answer(key, draw(st.sampled_from(choices)), who, draw(st.floats(0, 99)), draw(st.integers(0, 3)))
            for key in ids
            for who in draw(st.lists(st.sampled_from(["eva", 'Öde, "x"', "bot"]), unique=True, min_size=least))
        ]
        records.append((queries, answers))
    return records


def stored(folder: Path, records: list[tuple[Queries, list[Answer]]]) -> PreferenceDataset:
    made = PreferenceDataset(folder)
    for queries, answers in records:
        made.append(queries, answers)
    return made


@pytest.mark.parametrize("ending", ["json", "pickle", "pkl", "jsonl", "parquet"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=datasets())
def test_everything_comes_back(
    tmp_path_factory: pytest.TempPathFactory, ending: str, records: list[tuple[Queries, list[Answer]]]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    source, copy = stored(folder / "source", records), PreferenceDataset(folder / "copy")
    path = folder / f"all.{ending}"
    assert export_any(source, path) == (sum(len(queries) for queries, _ in records), 0)
    assert import_any(copy, path)[0] == sum(len(answers) for _, answers in records)
    same(copy, source)
    assert import_any(copy, path)[0] == 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=datasets())
def test_folders_of_lerobot_come_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[Queries, list[Answer]]]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    source, copy = stored(folder / "source", records), PreferenceDataset(folder / "copy")
    export_any(source, folder / "robot", kind="lerobot")
    assert import_any(copy, folder / "robot")[0] == sum(len(answers) for _, answers in records)
    same(copy, source)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=datasets(decisive=True))
def test_chosen_and_rejected_come_back(
    tmp_path_factory: pytest.TempPathFactory, ending: str, records: list[tuple[Queries, list[Answer]]]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    source, copy = stored(folder / "source", records), PreferenceDataset(folder / "copy")
    assert export_any(source, folder / f"all.{ending}", kind="trl")[1] == 0
    import_any(copy, folder / f"all.{ending}", kind="trl")
    same(copy, source)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=datasets())
def test_answers_alone_come_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[Queries, list[Answer]]]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    source = stored(folder / "source", records)
    asked = stored(folder / "asked", [(queries, []) for queries, _ in records])
    export_any(source, folder / "said.csv")
    if not any(answers for _, answers in records):
        with pytest.raises(UserError, match="holds no answers"):
            import_any(asked, folder / "said.csv")
        return
    import_any(asked, folder / "said.csv")
    same(asked, source)


def steps(count: int, at: float = 0.0, obs: int = 2) -> dict[str, Any]:
    """A trajectory of which each number tells the step."""
    numbers = [[at + i] * obs for i in range(count)]
    return {"observations": numbers, "actions": [[i / 100] for i in range(count)]}


def imported(folder: Path, content: Any, name: str = "some.json", **options: Any) -> PreferenceDataset:
    path, made = folder / name, PreferenceDataset(folder / "made")
    if name.endswith("json"):
        path.write_text(json.dumps(content))
    elif name.endswith("jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in content))
    else:
        path.write_bytes(pickle.dumps(content))
    import_any(made, path, **options)
    return made


@pytest.mark.parametrize(
    ("label", "choice"),
    [
        ([], "left"),
        ([0], "left"),
        ([0.0], "left"),
        ([1], "right"),
        ([0.5], "equal"),
        (["skip"], "skip"),
        (["right"], "right"),
        ([None], None),
    ],
)
@pytest.mark.parametrize("name", ["some.json", "some.pickle"])
def test_the_first_is_preferred_unless_a_label_says_otherwise(
    tmp_path: Path, label: list[Any], choice: str | None, name: str
) -> None:
    ((queries, answers),) = imported(tmp_path, [("open", steps(3), steps(3, 9.0), *label)], name).read()
    assert [(a.choice, a.annotator) for a in answers] == ([] if choice is None else [(choice, "imported")])
    assert queries.instructions == ("open",)
    np.testing.assert_array_equal(queries.left.obs[0], [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(queries.right.obs[0][:, 0], [9, 10, 11])
    assert np.isnan(queries.left.reward).all() and not queries.left.success.any()


def test_pairs_may_be_objects_and_trajectories_lists_of_steps(tmp_path: Path) -> None:
    steps_of = [
        {"obs": [1, 2], "action": [0.5], "reward": 3, "success": True},
        {"obs": [3, 4], "action": [0], "reward": 4, "success": 0},
    ]
    item = {"trajectory_a": steps_of, "trajectory_b": steps_of, "preference": 1, "annotator": "eva", "seconds": 2}
    ((queries, answers),) = imported(tmp_path, [item]).read()
    assert answers == [Answer(queries.ids[0], "right", "eva", 2.0)]
    np.testing.assert_array_equal(queries.right.obs, [[[1, 2], [3, 4]]])
    np.testing.assert_array_equal(queries.right.reward, [[3, 4]])
    np.testing.assert_array_equal(queries.right.success, [[True, False]])


@pytest.mark.parametrize("kind", [np.float64, np.float16, ">f4", np.int32])
def test_pickled_arrays_of_any_numbers_are_read(tmp_path: Path, kind: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        side = {"obs": np.asfortranarray(np.arange(6).reshape(3, 2).astype(kind)), "action": np.zeros((3, 1))}
        side |= {"reward": [np.float32(1.5), 2.0, np.int64(3)], "success": np.array([True, False, True])}
        path, made = tmp_path / f"{protocol}.pkl", PreferenceDataset(tmp_path / f"made{protocol}")
        path.write_bytes(pickle.dumps([("", side, side)], protocol=protocol))
        import_any(made, path)
        ((queries, _),) = made.read()
        np.testing.assert_array_equal(queries.left.obs[0], [[0, 1], [2, 3], [4, 5]])
        np.testing.assert_array_equal(queries.left.reward[0], [1.5, 2, 3])
        np.testing.assert_array_equal(queries.left.success[0], [True, False, True])


def test_an_exported_pickle_is_plain_containers_and_arrays(tmp_path: Path) -> None:
    source = imported(tmp_path, [["open", steps(3), steps(3, 5.0), 0.5]])
    export_any(source, tmp_path / "out.pickle")
    with (tmp_path / "out.pickle").open("rb") as file:
        ((instruction, first, second, label, details),) = pickle.load(file)
    assert (instruction, label, details["annotator"]) == ("open", 0.5, "imported")
    assert type(first) is dict and type(first["observations"]) is np.ndarray
    np.testing.assert_array_equal(second["observations"][:, 0], [5, 6, 7])


def test_the_last_steps_of_longer_trajectories_are_kept(tmp_path: Path) -> None:
    content = [["", steps(7), steps(5, 100.0)], ["", {**steps(6), "episode": 3, "start": 10}, steps(7)]]
    ((queries, _),) = imported(tmp_path, content, segment_length=5).read()
    assert queries.left.length == 5
    np.testing.assert_array_equal(queries.left.obs[:, :, 0], [[2, 3, 4, 5, 6], [1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(queries.right.obs[:, :, 0], [[100, 101, 102, 103, 104], [2, 3, 4, 5, 6]])
    assert queries.left.start.tolist() == [2, 11] and queries.right.start.tolist() == [0, 2]
    assert queries.left.episode[1] == 3
    assert queries.left.episode[0] == queries.right.episode[1], "one trajectory is one episode in all pairs"


def test_the_observation_after_the_last_step_is_left_out(tmp_path: Path) -> None:
    longer = {**steps(4), "actions": [[0]] * 3}
    ((queries, _),) = imported(tmp_path, [["", longer, steps(3)]]).read()
    np.testing.assert_array_equal(queries.left.obs[0, :, 0], [0, 1, 2])


def test_answers_of_several_unnamed_people_are_all_kept(tmp_path: Path) -> None:
    pair = ["", steps(2), steps(2, 5.0)]
    made = imported(tmp_path, [[*pair, 0], [*pair, 1], [*pair, 0]])
    ((queries, answers),) = made.read()
    assert len(queries) == 1
    assert [(a.choice, a.annotator) for a in answers] == [
        ("left", "imported"), ("right", "imported-2"), ("left", "imported-3"),
    ]  # fmt: skip
    assert import_any(made, tmp_path / "some.json") == (0, 3)


def test_two_files_that_name_nobody_are_told_apart_by_a_name(tmp_path: Path) -> None:
    pair = ["", steps(2), steps(2, 5.0)]
    made = imported(tmp_path, [[*pair, 0]])
    (tmp_path / "other.json").write_text(json.dumps([[*pair, 1]]))
    assert import_any(made, tmp_path / "other.json") == (0, 1), "it is said that nothing is new"
    assert import_any(made, tmp_path / "other.json", annotator="bob") == (1, 0)
    assert [(a.choice, a.annotator) for a in made.read()[0][1]] == [("left", "imported"), ("right", "bob")]
    export_any(made, tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="--annotator is for files that do not say who answered"):
        import_any(made, tmp_path / "out.jsonl", annotator="bob")


BAD_PAIRS: list[tuple[Any, str]] = [
    ({"a": 1}, "wanted a JSON list"),
    ([], "holds no pairs"),
    ([["", steps(2)]], r"pair 1: wanted \[instruction, trajectory_a, trajectory_b\]"),
    ([["", steps(2), 5]], "pair 1, trajectory_b: wanted a trajectory"),
    ([["", steps(2), []]], "trajectory_b: the trajectory has no steps"),
    ([[7, steps(2), steps(2)]], "pair 1: the instruction is no text but int"),
    ([["", {"observations": [[1]]}, steps(2)]], "trajectory_a: has no actions"),
    ([["", {**steps(2), "obs": [[1]]}, steps(2)]], "has both obs and observations"),
    ([["", {**steps(2), "acton": 1}, steps(2)]], "unknown key 'acton'"),
    ([["", {**steps(2), "actions": [[0.0]] * 4}, steps(2)]], "differ in length"),
    ([["", {**steps(2), "rewards": [1]}, steps(2)]], "differ in length, .*1 reward"),
    ([["", {"observations": [], "actions": []}, steps(2)]], "rows of numbers"),
    ([["", {**steps(2), "observations": [[1, 2], [3]]}, steps(2)]], "all of one length"),
    ([["", {**steps(2), "observations": [[1, 2], [3, "4"]]}, steps(2)]], "something that is no number"),
    ([["", {**steps(2), "observations": [[1, 2], [3, None]]}, steps(2)]], "something that is no number"),
    ([["", {**steps(2), "observations": [[1, 2], [3, True]]}, steps(2)]], "something that is no number"),
    ([["", {**steps(2), "observations": "ab"}, steps(2)]], "wanted numbers, found str"),
    ([["", {**steps(2), "observations": [[1e39, 2], [3, 4]]}, steps(2)]], "left_obs holds a missing or infinite value"),
    ([["", {**steps(2), "observations": [[10**400, 2], [3, 4]]}, steps(2)]], "a number that is too large"),
    ([["", steps(2), {**steps(2), "actions": [[1.5], [0]]}]], r"pair 1: right_action lies outside \[-1, 1\]"),
    ([["", steps(2), {**steps(2), "successes": [0.5, 1]}]], "success: wanted true or false"),
    ([["", steps(2), {**steps(2), "episode": -1}]], "episode is '-1': wanted a whole number"),
    ([["", steps(2), steps(2), 2]], "pair 1: the label is '2', wanted 0"),
    ([["", steps(2), steps(2), -1]], "the label is '-1'"),
    ([["", steps(2), steps(2), 0.7]], "the label is '0.7'"),
    ([["", steps(2), steps(2), True]], "the label is 'True'"),
    ([["", steps(2), steps(2), "first"]], "the label is 'first'"),
    ([["", steps(2), steps(2), [0]]], "the label is list"),
    ([["", steps(2), steps(2), 10**400]], "the label is '10000"),
    ([["\ud800", steps(2), steps(2)]], r"the instruction '\\ud800' holds half of a character"),
    ([["", {**steps(2), "start": 2**63 - 1}, steps(2)]], "start is '9223372036854775807': wanted a whole number"),
    ([["", {**steps(2), "\x1b[2J": 1}, steps(2)]], r"unknown key '\\x1b\[2J'"),
    ([["", {**steps(2), "observations": [[], []]}, steps(2)]], "its rows hold no numbers"),
    ([["", steps(2), steps(2), 0, {"seconds": -1}]], "seconds: Input should be greater"),
    ([["", steps(2), steps(2), 0, {"colour": 1}]], "colour: Extra inputs"),
    (
        [["", steps(2), steps(2), label, {"annotator": "eva"}] for label in (0, 1)],
        "pair 2: 'eva' has answered 'imported/.*' in .*pair 1: one answer of each",
    ),
    ([["", steps(2), steps(2), 0, [1]]], "its fifth element is no object"),
    ([{"trajectory_a": steps(2)}], "has no trajectory_b"),
    ([{"trajectory_a": steps(2), "trajectory_b": steps(2), "label": 0, "preference": 0}], "both a label and a"),
    ([["", steps(2), steps(2)], ["", steps(2), steps(2, obs=3)]], "pair 2: the second has observations of 3 numbers"),
    ([["", steps(2), steps(2)], ["", steps(2), steps(4)]], "pair 2: the second has 4 steps, others 2: give --segment"),
    (
        [["", steps(2), steps(2), 0, {"query_id": "x"}], ["", steps(2, 3.0), steps(2), 0, {"query_id": "x"}]],
        "pair 2: the id 'x' stands for another pair in .*pair 1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_PAIRS)
def test_a_malformed_pair_is_named_and_nothing_is_written(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"some\.json.*({message})") as raised:
        imported(tmp_path, content)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "text", ["", "[", "[[", '[["", {"obs"', "[]x", "[1 2]", "[NaN]", "\xff", "[" * 100_000, '["a",', "{}", "null"]
)
def test_json_that_is_not_whole_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "some.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=r"some\.json") as raised:
        import_any(PreferenceDataset(tmp_path / "made"), tmp_path / "some.json")
    assert "\n" not in str(raised.value) and not (tmp_path / "made").exists()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), name=st.sampled_from(["all.json", "all.pickle"]))
def test_truncated_files_are_one_line_and_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, share: float, name: str
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    source = imported(folder, [["open", steps(3), steps(3, i + 1.0)] for i in range(3)])
    export_any(source, folder / name)
    content = (folder / name).read_bytes().rstrip()
    (folder / name).write_bytes(content[: int(share * len(content))])
    before = sorted(path.name for path in Path(source.where).iterdir())
    with pytest.raises(UserError, match=r"whole|wanted a JSON list"):
        import_any(source, folder / name)
    assert sorted(path.name for path in Path(source.where).iterdir()) == before


def test_long_json_is_read_pair_by_pair(tmp_path: Path) -> None:
    """Pairs lie across the ends of what is read at once."""
    content = [["öffne", steps(100, float(i), obs=120), steps(100, i + 0.5, obs=120)] for i in range(30)]
    made = imported(tmp_path, content)
    assert (tmp_path / "some.json").stat().st_size > 2 << 20
    ((queries, _),) = made.read()
    np.testing.assert_array_equal(queries.left.obs[:, 0, 0], np.arange(30))


def test_chosen_and_rejected_without_anything_else(tmp_path: Path) -> None:
    rows = [
        {"prompt": "open", "chosen": steps(2), "rejected": steps(2, 7.0)},
        {"chosen": steps(2), "rejected": steps(2, 8.0)},
    ]
    ((queries, answers),) = imported(tmp_path, rows, "some.jsonl", kind="trl").read()
    assert [a.choice for a in answers] == ["left", "left"] and queries.instructions == ("open", "")
    np.testing.assert_array_equal(queries.right.obs[:, 0, 0], [7, 8])


def test_what_prefers_no_side_is_left_out_and_counted(tmp_path: Path) -> None:
    pairs = [["", steps(2), steps(2, 5.0 + i), label] for i, label in enumerate([0, 1, 0.5, "skip", None])]
    source = imported(tmp_path, pairs)
    assert export_any(source, tmp_path / "out.jsonl", kind="trl") == (5, 3)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["chosen_is"] for line in lines] == ["left", "right"]
    assert lines[1]["chosen"]["observations"] == steps(2, 6.0)["observations"]


BAD_ROWS: list[tuple[Any, str]] = [
    ([1], "line 1: wanted an object"),
    ([{"chosen": steps(2)}], "line 1: has no rejected"),
    ([{"chosen": "good", "rejected": "bad"}], "line 1, chosen: wanted a trajectory"),
    ([{"chosen": steps(2), "rejected": steps(2), "colour": 1}], "line 1: colour: Extra inputs"),
    ([{"chosen": steps(2), "rejected": steps(2), "chosen_is": "equal"}], "chosen_is is 'equal', wanted left or right"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS)
def test_a_malformed_row_is_named(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"some\.jsonl, (line 1: )?{message}"):
        imported(tmp_path, rows, "some.jsonl", kind="trl")
    assert not (tmp_path / "made").exists()


def test_parquet_of_something_else_is_one_line(tmp_path: Path) -> None:
    made, path = PreferenceDataset(tmp_path / "made"), tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(UserError, match=r"cannot read .*x\.parquet"):
        import_any(made, path, kind="trl")
    pq.write_table(pa.table({"chosen": ["a"], "rejected": ["b"]}), path)
    with pytest.raises(UserError, match="row 1, chosen: wanted a trajectory"):
        import_any(made, path, kind="trl")


HEAD = "query_id,choice,annotator,seconds,replays"
BAD_CSV = [
    ("", "lacks query_id"),
    ("query_id,choice\n", "lacks annotator"),
    (f"{HEAD},colour\n", "unknown column 'colour'"),
    (f"{HEAD}\n", "holds no answers"),
    (f"{HEAD}\nq/1,left,eva,1\n", "line 2: it has not as many fields"),
    (f"{HEAD}\nq/1,left,eva,1,2,3\n", "line 2: it has not as many fields"),
    (f"{HEAD}\nq/1,left,eva,1,0\nq/9,left,eva,1,0\n", "line 3: the dataset has no query 'q/9'"),
    (f"{HEAD}\nq/1,maybe,eva,1,0\n", "'maybe' is none of left, right, equal, skip"),
    (f"{HEAD}\nq/1,left,,1,0\n", "its annotator is ''"),
    (f"{HEAD}\nq/1,left,eva,1,0\nq/1,right,eva,1,0\n", "line 3: 'eva' has answered 'q/1' in .*line 2: one answer"),
    (f"{HEAD}\nq/1,left,eva,1,{10**22}\n", "line 2: .*replays are negative, or no number"),
    (f"{HEAD}\nq/1,left,eva,soon,0\n", "line 2: seconds or replays is no number"),
    (f"{HEAD}\nq/1,left,eva,-1,0\n", "negative or infinite time"),
    (f"{HEAD}\nq/1,left,eva,nan,0\n", "negative or infinite time"),
    (f"{HEAD}\nq/1,left,eva,1,0.5\n", "seconds or replays is no number"),
    (f'{HEAD}\nq/1,"left,eva,1,0\n', "after line"),
    (f"{HEAD}\nq/1,left,\xff,1,0\n", "no text in UTF-8"),
]


@pytest.fixture
def asked(tmp_path: Path) -> PreferenceDataset:
    return imported(tmp_path, [["", steps(2), steps(2, 3.0), None, {"query_id": f"q/{i}"}] for i in (1,)])


@pytest.mark.parametrize(("text", "message"), BAD_CSV)
def test_a_malformed_answer_is_named_and_nothing_is_added(asked: PreferenceDataset, text: str, message: str) -> None:
    path = Path(asked.where).parent / "said.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=message) as raised:
        import_any(asked, path)
    assert str(path) in str(raised.value)
    assert asked.read()[0][1] == []


def test_answers_are_added_and_one_that_is_there_stays(asked: PreferenceDataset) -> None:
    path = Path(asked.where).parent / "said.csv"
    path.write_text("\ufeffquery_id,annotator,choice\nq/1,eva,left\nq/1,bob,right\n", encoding="utf-8")
    assert import_any(asked, path)[0] == 2
    path.write_text(f"{HEAD}\nq/1,right,eva,3.5,2\nq/1,skip,zoe,3.5,2\n")
    assert import_any(asked, path)[0] == 1
    assert {(a.annotator, a.choice) for a in asked.read()[0][1]} == {("eva", "left"), ("bob", "right"), ("zoe", "skip")}
    export_any(asked, path)
    with path.open(newline="") as file:
        assert {row["annotator"]: row["seconds"] for row in csv.DictReader(file)}["zoe"] == "3.5"


def test_formats_are_told_by_names(tmp_path: Path) -> None:
    made = PreferenceDataset(tmp_path / "made")
    with pytest.raises(UserError, match=r"must end in \.parquet, \.jsonl, \.json, \.pickle, \.pkl, \.csv, or give"):
        import_any(made, tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"must end in \.jsonl or \.parquet"):
        import_any(made, tmp_path / "x.json", kind="trl")
    with pytest.raises(UserError, match="--segment-length is for trajectories"):
        import_any(made, tmp_path / "x.jsonl", segment_length=3)
    for ending in ("json", "pickle", "csv"):
        with pytest.raises(UserError, match=f"cannot read .*x.{ending}: no such file"):
            import_any(made, tmp_path / f"x.{ending}")
    inside = imported(tmp_path, [["", steps(2), steps(2)]])
    with pytest.raises(UserError, match="must hold nothing else"):
        export_any(inside, Path(inside.where) / "x.json")


def test_a_missing_true_reward_is_no_zero(tmp_path: Path) -> None:
    """It is NaN in memory and in Parquet, and null in JSON lines; half of one is refused."""
    made = imported(tmp_path, [["", steps(2), steps(2, 4.0)], ["", {**steps(2), "rewards": [0, 0]}, steps(2)]])
    found = info(made)
    assert (found["rewarded"], found["queries"]) == (0, 2)
    ((queries, _),) = made.read()
    assert queries.left.rewarded().tolist() == [False, True] and queries.right.rewarded().tolist() == [False, False]
    export_file(made, tmp_path / "x.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["left"]["reward"] for line in lines] == [None, [0.0, 0.0]]
    for ending in ("jsonl", "parquet"):
        export_file(made, tmp_path / f"x.{ending}")
        copy = PreferenceDataset(tmp_path / f"copy-{ending}")
        import_file(copy, tmp_path / f"x.{ending}")
        same(copy, made)
    half = queries.left.reward.copy()
    half[1, 0] = math.nan
    broken = Queries(queries.ids, 0, Segments(**{**queries.left.__dict__, "reward": half}), queries.right)
    with pytest.raises(UserError, match="left_reward holds a missing or infinite value"):
        made.append(broken, [])

"""The page that compares runs: what it says, what it never lets a name do, and that it asks nobody for anything."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from saved_runs import make_run

from rayrlhf.cli import main
from rayrlhf.envs.video import write_video
from rayrlhf.errors import UserError
from rayrlhf.plotting import films, read_curve
from rayrlhf.plotting.compare import compare_runs, content
from rayrlhf.plotting.sides import sides_of
from rayrlhf.tracking import RunDirectory

HOSTILE = "<img src=x onerror=alert(1)> $x_1$ \"'&{{ 7*7 }}"
BINS = {"edges": [0.0, 0.5, 1.0], "count": [3, 1], "predicted": [0.2, 0.9], "observed": [0.25, None]}


def seeds(folder: Path, *overrides: str, ends: tuple[float, ...] = (0.5, 0.7, 0.9)) -> Path:
    """A folder of runs of one method."""
    for seed, end in enumerate(ends):
        make_run(folder, f"seed={seed}", *overrides, success=(0.0, 0.1, 0.2, end))
    return folder


def film(run: Path, frames: int = 4) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (frames, 64, 64, 3), dtype=np.uint8)
    write_video(run / "videos" / "step000004000.mp4", iter(noise), 20)


class Outline(HTMLParser):
    """Elements, their attributes and the text that is read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(*paths: Path, out: Path) -> Outline:
    return Outline(compare_runs(list(paths), out=out).read_text())


def test_folders_of_runs_are_sides(tmp_path: Path) -> None:
    sides = sides_of([seeds(tmp_path / "good"), seeds(tmp_path / "bad", "teacher.name=random")])
    assert [(side.name, len(side.curves)) for side in sides] == [("good", 3), ("bad", 3)]
    # the same config twice: before and after a change of the code, say
    again = sides_of([tmp_path / "good", seeds(tmp_path / "later" / "good")])
    assert [side.name for side in again] == ["good", "good (2)"]


def test_a_folder_of_two_methods_is_two_sides(tmp_path: Path) -> None:
    both = seeds(seeds(tmp_path / "both", ends=(0.1, 0.2)), "teacher.name=random", ends=(0.1, 0.2))
    names = [side.name for side in sides_of([both])]
    assert names == ["PEBBLE, teacher.name oracle", "PEBBLE, teacher.name random"]
    three = [side.name for side in sides_of([both, seeds(tmp_path / "good")])]
    assert three == ["both: PEBBLE, teacher.name oracle", "both: PEBBLE, teacher.name random", "good"]


def test_single_runs_are_joined_by_method_unless_nothing_were_left_to_compare(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"seed={seed}", f"name=a{seed}") for seed in (0, 1)]
    other = make_run(tmp_path, "teacher.name=random", "name=drawn")
    assert [side.name for side in sides_of([*runs, other])] == ["PEBBLE, teacher.name oracle", "drawn"]
    assert [side.name for side in sides_of(runs)] == ["a0", "a1"]
    assert [side.name for side in sides_of([other, seeds(tmp_path / "many")])] == ["drawn", "many"]


def test_what_is_no_comparison_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(UserError, match="one side alone"):
        sides_of([run])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither a run's folder nor a folder of runs"):
        sides_of([run, tmp_path / "empty"])
    with pytest.raises(UserError, match="there is no run"):
        sides_of([run, tmp_path / "nowhere"])


def test_the_numbers(tmp_path: Path) -> None:
    good, bad = seeds(tmp_path / "good"), seeds(tmp_path / "bad", "teacher.name=random", ends=(0.1, 0.2, 0.5))
    found = content(sides_of([good, bad]), tmp_path)
    first, second = found["endings"]
    assert (first.success.split()[0], second.success.split()[0]) == ("70%", "27%")
    assert re.fullmatch(r"70% \(\d+% to \d+%\)", first.success)
    assert (first.labels, first.env_steps, first.true_return.split()[0]) == ("40", "4,000", "7")
    [success, _] = found["improvements"]
    # of nine pairs one is a tie and no other is won
    assert success.probability == pytest.approx(0.5 / 9)
    assert 0 <= success.interval[0] <= success.probability <= success.interval[1] < 0.5
    assert success.least_p == pytest.approx(0.1)
    assert 0.1 <= success.p <= 0.3
    assert dict(found["options"]) == {"teacher.name": ["oracle", "random"]}


def test_of_single_runs_nothing_is_claimed(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "name=one"), make_run(tmp_path, "name=two", "teacher.name=random")]
    page = page_of(*runs, out=tmp_path / "out")
    assert "No side has several runs of a task: there are no intervals" in page.words
    assert "95% bootstrap interval over runs" not in page.words
    assert "Performance profiles" not in page.words
    found = content(sides_of(runs), tmp_path)
    assert all(row.interval is None and row.p is None for row in found["improvements"])
    assert [row.success for row in found["endings"]] == ["90%", "90%"]


def test_several_tasks_are_strata_and_a_side_may_lack_one(tmp_path: Path) -> None:
    other = "env.task=point-terminating"
    both = seeds(seeds(tmp_path / "both", other, ends=(0.2, 0.4)), ends=(0.4, 0.6))
    drawn = seeds(seeds(tmp_path / "drawn", other, "teacher.name=random", ends=(0.3, 0.3)), "teacher.name=random")
    one = seeds(tmp_path / "one", "teacher.name=noisy", ends=(0.1, 0.1))
    found = content(sides_of([both, drawn, one]), tmp_path)
    rows = {(row.task, row.side): row for row in found["endings"]}
    assert ("point", 2) in rows and not {("point-terminating", 2), ("all tasks", 2)} & rows.keys()
    assert rows["all tasks", 0].success.startswith("40%") and rows["all tasks", 0].runs == 4
    assert rows["all tasks", 0].true_return == "—"
    better = {(row.task, row.better, row.worse): row for row in found["improvements"] if row.measure == "success_rate"}
    assert {task for task, *sides in better if 2 in sides} == {"point"}
    average = better["all tasks", 1, 0]
    each = [better[task, 1, 0].probability for task in ("point", "point-terminating")]
    assert average.probability == pytest.approx(np.mean(each))
    assert average.p is None and average.interval is not None
    assert page_of(both, drawn, one, out=tmp_path / "out").words.count("all tasks") > 3


def test_alignment_is_shown_where_it_is_known(tmp_path: Path) -> None:
    known, unknown = make_run(tmp_path, "name=known"), make_run(tmp_path, "name=unknown", "teacher.name=random")
    assert content(sides_of([known, unknown]), tmp_path)["alignment"] is None
    calibrated = {"expected_calibration_error": 0.123, "bins": BINS}
    found = {"answers": {"from": "elsewhere"}, "calibration": calibrated, "true_reward": {"epic": 0.25}}
    RunDirectory.open(known).write_alignment(found)
    page = page_of(known, unknown, out=tmp_path / "out")
    for words in ("0.123", "0.250", "elsewhere", "Reliability on held-out answers"):
        assert words in page.words
    RunDirectory.open(unknown).write_alignment({**found, "answers": {"from": "other"}})
    assert "measured by different answers" in page_of(known, unknown, out=tmp_path / "out").words


def test_what_was_measured_before_the_end_says_at_which_step(tmp_path: Path) -> None:
    run, other = make_run(tmp_path, "name=known"), make_run(tmp_path, "name=unknown", "teacher.name=random")
    last = int(read_curve(run).env_steps[-1])
    for steps, said in ((last, False), (last - 1, True)):
        RunDirectory.open(run).write_alignment({"env_steps": steps, "true_reward": {"epic": 0.25}})
        page = page_of(run, other, out=tmp_path / f"out-{steps}")
        assert (f"known at {steps:,} of {last:,} steps" in page.words) == said


def test_names_stay_text(tmp_path: Path) -> None:
    sides = [seeds(tmp_path / name, *changes) for name, changes in ((HOSTILE, ()), ("b", ("teacher.name=random",)))]
    run = next(sides[0].iterdir())
    RunDirectory.open(run).write_alignment({"answers": {"from": HOSTILE}, "calibration": {"bins": BINS}})
    film(run)
    page = page_of(*sides, out=tmp_path / "out")
    assert page.words.count(HOSTILE) > 5
    assert not {"script", "img", "iframe", "object", "link", "base"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "49" not in {word.strip() for word in page.words.split()}
    assert any(HOSTILE in (attributes.get("aria-label") or "") for _, attributes in page.tags)


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    run = make_run(tmp_path, "name=filmed")
    film(run)
    page = page_of(run, make_run(tmp_path, "name=not", "teacher.name=random"), out=tmp_path / "out")
    sources = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "poster", "xlink:href", "srcset") and value
    ]
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    [policy] = [m for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert (policy["content"] or "").startswith("default-src 'none'")
    assert not re.findall(r"@import|url\((?!#)", (tmp_path / "out" / "compare.html").read_text())


def test_pictures_are_described_and_ids_differ(tmp_path: Path) -> None:
    page = page_of(seeds(tmp_path / "a"), seeds(tmp_path / "b", "teacher.name=random"), out=tmp_path / "out")
    described = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(described) == 5 == len(page.of("figure"))
    assert "a goes from 0% to 70%" in (described[0]["aria-label"] or "")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(page.of("caption")) == len(page.of("table"))
    targets = {(attributes.get("href") or "#")[1:] for attributes in page.of("a")}
    assert targets <= set(ids)


def test_the_video_of_the_run_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = seeds(tmp_path / "side")
    for run in side.iterdir():
        film(run)
    other = make_run(tmp_path, "name=other", "teacher.name=random")
    [shown] = films.films(sides_of([side, other]), tmp_path / "beside")
    assert (shown.side, shown.success) == (0, 0.7)
    assert shown.source.startswith("data:video/mp4;base64,") and shown.poster.startswith("data:image/jpeg;base64,")
    assert not (tmp_path / "beside").exists()
    monkeypatch.setattr(films, "EMBEDDED", 10)
    [large] = films.films(sides_of([side, other]), tmp_path / "beside")
    assert large.source == "beside/video-1.mp4"
    middle = next(run for run in side.iterdir() if read_curve(run).values["success_rate"][-1] == 0.7)
    assert (tmp_path / large.source).read_bytes() == next((middle / "videos").iterdir()).read_bytes()


def test_pages_of_equal_runs_are_equal(tmp_path: Path) -> None:
    paths = [seeds(tmp_path / "a"), seeds(tmp_path / "b", "teacher.name=random")]
    first, second = (compare_runs(paths, out=tmp_path / out).read_bytes() for out in ("x", "y"))
    assert first == second


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(make_run(tmp_path, "name=a")), str(make_run(tmp_path, "name=b", "teacher.name=random"))]
    assert main(["plot", "--compare", *paths]) == 0
    assert capsys.readouterr().out.split() == ["plot", str(tmp_path / "a" / "plots" / "compare.html")]
    assert main(["plot", *paths, "--compare", "--svg"]) == 2
    assert "--svg" in capsys.readouterr().err

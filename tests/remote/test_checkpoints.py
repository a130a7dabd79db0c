"""Checkpoints at a URL are whole or not there; what nobody keeps goes; what does not fit is refused."""

import json
from pathlib import Path

import pytest
from saved_runs import Noting, cut, new_run

from rayrlhf.algorithms import checkpoint
from rayrlhf.bench.bucket import Storage
from rayrlhf.errors import UserError
from rayrlhf.remote import Objects, checkpoints
from rayrlhf.tracking import RunDirectory


def die() -> None:
    raise KeyboardInterrupt


def upload(objects: Objects, place: Path) -> None:
    checkpoints.upload(objects, place, lambda: None, lambda done, total: None)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return new_run(tmp_path / "runs")


@pytest.fixture(params=["s3", "file"])
def objects(request: pytest.FixtureRequest, storage: Storage, tmp_path: Path) -> Noting:
    """An empty place for a run."""
    return Noting(storage.url(f"{tmp_path.name}/run") if request.param == "s3" else f"file://{tmp_path}/away/run")


def test_what_is_uploaded_comes_back(objects: Noting, run: RunDirectory, tmp_path: Path) -> None:
    place = cut(run, 100, "ab")
    upload(objects, place)
    found = checkpoints.download_newest(objects, tmp_path / "other", run.config(), pytest.fail)
    assert found == tmp_path / "other" / "checkpoints" / place.name
    assert checkpoint.verify(found, run.config()) == checkpoint.verify(place, run.config())
    assert not list(found.parent.glob(".*"))


def test_rows_are_uploaded_once_and_the_manifest_last(objects: Noting, run: RunDirectory) -> None:
    upload(objects, cut(run, 100, "ab"))
    objects.written.clear()
    second = cut(run, 200, "abc")
    upload(objects, second)
    assert [name for name in objects.written if "/rows/" in name] == ["checkpoints/rows/c"]
    assert objects.written[-1] == f"checkpoints/{second.name}/manifest.json"
    objects.written.clear()
    upload(objects, second)
    assert objects.written == []


@pytest.mark.parametrize("again", [False, True])
def test_a_half_uploaded_checkpoint_is_passed_over(
    objects: Noting, run: RunDirectory, tmp_path: Path, again: bool
) -> None:
    """Also where there was a whole one of its name, from before the run went back."""
    first, second = cut(run, 100, "ab"), cut(run, 200, "abc")
    upload(objects, first)
    if again:
        upload(objects, second)
        (second / "manifest.json").write_text(json.dumps(json.loads((second / "manifest.json").read_text()), indent=3))
    with pytest.raises(KeyboardInterrupt):
        checkpoints.upload(objects, second, die, lambda done, total: None)
    said: list[str] = []
    found = checkpoints.download_newest(objects, tmp_path / "other", run.config(), said.append)
    assert found is not None and found.name == first.name
    assert len(said) == 1 and second.name in said[0] and "not uploaded to the end; going back" in said[0]
    assert [place.name for place in checkpoint.by_age(tmp_path / "other" / "checkpoints")] == [first.name]


@pytest.mark.parametrize("victim", ["step-000000000200/learner.safetensors", "rows/c"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_damaged_checkpoint_is_passed_over(
    objects: Noting, run: RunDirectory, tmp_path: Path, victim: str, gone: bool
) -> None:
    for place in (cut(run, 100, "ab"), cut(run, 200, "abc")):
        upload(objects, place)
    if gone:
        objects.delete(f"checkpoints/{victim}")
    else:
        objects.write(f"checkpoints/{victim}", b"damaged")
    said: list[str] = []
    found = checkpoints.download_newest(objects, tmp_path / "other", run.config(), said.append)
    assert found is not None and found.name == "step-000000000100"
    assert len(said) == 1 and victim in said[0]
    checkpoint.verify(found, run.config())


def test_where_none_is_whole_nothing_is_chosen(objects: Noting, run: RunDirectory, tmp_path: Path) -> None:
    upload(objects, cut(run, 100, "ab"))
    objects.write("checkpoints/step-000000000100/manifest.json", b"{")
    with pytest.raises(UserError, match="no earlier checkpoint is whole"):
        checkpoints.download_newest(objects, tmp_path / "other", run.config(), pytest.fail)
    assert checkpoints.download_newest(objects.below("empty"), tmp_path / "other", run.config(), pytest.fail) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": checkpoint.FORMAT + 1, "rayrlhf": "9.0"}, f"format {checkpoint.FORMAT + 1}.*use rayrlhf 9.0"),
        ({"format": None}, "is no checkpoint"),
        ({"made_for": {"seed": 7}}, "made with seed=7"),
    ],
)
def test_a_newer_or_foreign_checkpoint_is_refused_before_it_is_fetched(
    objects: Noting, run: RunDirectory, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    upload(objects, cut(run, 100, "a"))
    upload(objects, cut(run, 200, "ab", **changes))
    with pytest.raises(UserError, match=said):
        checkpoints.download_newest(objects, tmp_path / "other", run.config(), pytest.fail)
    assert not list((tmp_path / "other").rglob("*.safetensors"))


def test_a_manifest_cannot_name_files_elsewhere(objects: Noting, run: RunDirectory, tmp_path: Path) -> None:
    place = cut(run, 100, "")
    digest = json.loads((place / "manifest.json").read_text())["files"]["learner.safetensors"]
    evil = cut(run, 200, "", files={"../../../evil": digest})
    objects.write(f"checkpoints/{evil.name}/manifest.json", (evil / "manifest.json").read_bytes())
    with pytest.raises(UserError, match="outside of it"):
        checkpoints.download(objects, evil.name, tmp_path / "other", run.config())


def test_old_checkpoints_go_and_rows_that_none_names(objects: Noting, run: RunDirectory) -> None:
    for env_steps, rows in ((100, "ab"), (200, "ac"), (300, "ad"), (400, "ae")):
        upload(objects, cut(run, env_steps, rows))
    objects.write("checkpoints/rows/.f.partial", b"left by who died")
    objects.delete("checkpoints/step-000000000200/manifest.json")
    checkpoints.prune(objects, 2, "step-000000000300")
    names = objects.sizes("checkpoints").keys()
    assert {name.partition("/")[0] for name in names} == {"rows", "step-000000000100", "step-000000000300"}
    assert {name for name in names if name.startswith("rows/")} == {"rows/a", "rows/b", "rows/d"}

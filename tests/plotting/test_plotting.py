"""Curves: which runs belong together, on which points they are compared, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from saved_runs import LABELS, STEPS, make_run

from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.plotting import draw, draw_profiles, methods_of, plot_runs, read_curve
from rayrlhf.plotting.curves import on_one_grid
from rayrlhf.plotting.profiles import final_success
from rayrlhf.plotting.runs import Doubles
from rayrlhf.tracking import RunDirectory, Tracker


def test_a_curve_holds_the_evaluations_alone(tmp_path: Path) -> None:
    curve = read_curve(make_run(tmp_path))
    assert curve.env_steps.tolist() == list(STEPS)
    assert curve.labels.tolist() == list(LABELS)
    assert curve.values["success_rate"].tolist() == [0.0, 0.2, 0.6, 0.9]


def test_the_final_evaluation_replaces_one_at_the_same_step(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    run = RunDirectory.open(path)
    with Tracker(run, run.config().tracking) as tracker:
        tracker.log(4000, {"success_rate": 1.0, "true_return_mean": 12.0, "labels": 40})
    curve = read_curve(path)
    assert (len(curve.env_steps), curve.values["success_rate"][-1]) == (4, 1.0)


def test_runs_that_differ_in_the_seed_alone_are_one_method(tmp_path: Path) -> None:
    paths = [make_run(tmp_path, f"seed={seed}", f"evaluation.videos={seed}") for seed in range(3)]
    paths += [make_run(tmp_path, "teacher.name=random"), make_run(tmp_path, "mode=oracle")]
    methods = methods_of([read_curve(path) for path in paths])
    assert [len(method.curves) for method in methods] == [3, 1, 1]
    assert [method.name for method in methods] == [
        "PEBBLE, teacher.name oracle",
        "PEBBLE, teacher.name random",
        "true reward",
    ]


def test_curves_on_the_same_points_keep_them() -> None:
    x = np.array([1.0, 2.0, 4.0])
    grid, y = on_one_grid([(x, np.array([0.0, 1.0, 2.0])), (x, np.array([1.0, 1.0, 1.0]))])
    assert grid.tolist() == [1, 2, 4]
    assert y.tolist() == [[0, 1, 2], [1, 1, 1]]


def test_curves_on_different_points_are_compared_where_all_have_been() -> None:
    first: tuple[Doubles, Doubles] = (np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 2.0]))
    second: tuple[Doubles, Doubles] = (np.array([5.0, 15.0, 40.0]), np.array([5.0, 15.0, 40.0]))
    grid, y = on_one_grid([first, second])
    assert grid.tolist() == [5, 10, 15, 20]
    np.testing.assert_allclose(y, [[0.5, 1.0, 1.5, 2.0], [5, 10, 15, 20]])


def test_curves_that_share_no_point_still_make_a_picture() -> None:
    grid, y = on_one_grid([(np.array([1.0]), np.array([0.3])), (np.array([5.0]), np.array([0.7]))])
    assert (len(grid), y[:, 0].tolist()) == (1, [0.3, 0.7])


def test_the_interval_lies_around_the_curve(tmp_path: Path) -> None:
    ends = [(0.0, 0.1 * seed, 0.2 * seed, 0.2 * seed) for seed in range(5)]
    paths = [make_run(tmp_path, f"seed={seed}", success=end) for seed, end in enumerate(ends)]
    figure = draw("point", methods_of([read_curve(path) for path in paths]))
    panel = figure.axes[0]
    low, high = panel.collections[0].get_datalim(panel.transData).intervaly
    assert low >= 0.0 and high <= 0.8 and high > 0.5, "the band lies within what the seeds reached"
    line = next(line for line in panel.lines if line.get_label() == "PEBBLE (5 seeds)")
    np.testing.assert_allclose(line.get_ydata(), [0.0, 0.2, 0.4, 0.4], atol=1e-9)  # trimmed mean of 5


def test_labels_panel_shows_the_last_evaluation_at_each_count(tmp_path: Path) -> None:
    figure = draw("point", methods_of([read_curve(make_run(tmp_path))]))
    line = figure.axes[1].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 20, 40], [0.0, 0.6, 0.9])


def test_the_true_reward_alone_has_no_labels_panel(tmp_path: Path) -> None:
    oracle = read_curve(make_run(tmp_path, "mode=oracle"))
    assert len(draw("point", methods_of([oracle])).axes) == 2
    both = methods_of([oracle, read_curve(make_run(tmp_path))])
    assert len(draw("point", both).axes) == 4


def test_a_picture_per_task_and_format(tmp_path: Path) -> None:
    paths = [make_run(tmp_path), make_run(tmp_path, "env.suite=gymnasium", "env.task=HalfCheetah-v5")]
    written = plot_runs(paths, out=tmp_path / "out", svg=True)
    names = ["curves-point.png", "curves-point.svg", "curves-HalfCheetah-v5.png", "curves-HalfCheetah-v5.svg"]
    assert [path.name for path in written] == names
    assert written[1].read_text().startswith("<?xml")


def test_profiles_count_the_runs_of_all_tasks_that_end_above_each_level(tmp_path: Path) -> None:
    other = ("env.suite=gymnasium", "env.task=HalfCheetah-v5")
    good = [make_run(tmp_path, f"seed={seed}", success=(0, 0, 0, end)) for seed, end in enumerate((0.5, 0.9))]
    good += [make_run(tmp_path, "seed=2", "env.suite=toy", success=(0, 0, 0, 1.0))]
    bad = [make_run(tmp_path, f"seed={seed}", "teacher.name=random", success=(0, 0, 0, 0.1)) for seed in range(2)]
    methods = methods_of([read_curve(path) for path in good + bad], across_tasks=True)
    first, second = draw_profiles(methods).axes[0].lines
    levels, shares = first.get_xdata(), first.get_ydata()
    for level, share in zip(levels, shares, strict=True):
        assert share == pytest.approx(np.mean([end > level for end in (0.5, 0.9, 1.0)]))
    assert second.get_ydata()[0] == 1.0 and second.get_ydata()[-1] == 0.0
    alone = make_run(tmp_path, *other, "seed=7")
    assert [path.name for path in plot_runs([alone], out=tmp_path / "one")] == ["curves.png"]
    names = [path.name for path in plot_runs([*good, alone], out=tmp_path / "all")]
    assert names == ["curves-point.png", "curves-HalfCheetah-v5.png", "profiles.png"]


def test_tasks_are_strata_of_one_method(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "env.suite=gymnasium", f"env.task={task}-v5") for task in ("Hopper", "Ant")]
    curves = [read_curve(path) for path in runs]
    assert len(methods_of(curves)) == 2
    (method,) = methods_of(curves, across_tasks=True)
    assert [ends.tolist() for ends in final_success(method)] == [[0.9], [0.9]]


def test_pictures_of_equal_runs_are_equal(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    first = plot_runs([path], out=tmp_path / "a", svg=True)
    second = plot_runs([path], out=tmp_path / "b", svg=True)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs to draw"):
        plot_runs([])
    empty = RunDirectory.create(load_config("toy", [f"storage_path={tmp_path}"]))
    with pytest.raises(UserError, match="has no evaluation to draw yet"):
        plot_runs([empty.path])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        plot_runs([make_run(tmp_path, "seed=1")], out=tmp_path / "file")

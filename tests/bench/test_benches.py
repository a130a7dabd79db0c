"""Every benchmark runs, small, and returns the one form."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rayrlhf.bench import BENCHES, run
from rayrlhf.bench.controls import CONTROLS, constant_actions, constant_success
from rayrlhf.bench.report import Case
from rayrlhf.bench.timing import alternate
from rayrlhf.config.load import load_config
from rayrlhf.config.schema import TeacherOptions
from rayrlhf.errors import UserError
from rayrlhf.rewards.stored import FILE, RewardModel


def check(result: dict[str, Any], name: str, cases: set[str]) -> None:
    assert result["bench"] == name
    assert set(result["cases"]) == cases
    for case in result["cases"].values():
        assert set(case) == {"ours", "reference", "ratio", "unit", "against"}
        assert case["ours"] > 0 and math.isclose(case["ratio"], case["ours"] / case["reference"])
        assert case["unit"] and case["against"]
    assert result["machine"]["torch_threads"] == 1
    json.dumps(result, allow_nan=False)


def test_learner() -> None:
    result = run("learner", rounds=1, updates=2, rows=600, stock=False, epochs=1, device="cpu")
    sac, ppo = ("2x256_b256", "3x256_b512"), ("ppo_2x64_b100", "ppo_3x256_b125")
    check(result, "learner", {*sac, *ppo, *(f"{name}_tuned" for name in sac + ppo)})
    units = {name.startswith("ppo"): case["unit"] for name, case in result["cases"].items()}
    assert units == {False: "updates/s", True: "steps learnt from/s"}


def test_limits() -> None:
    sizes: dict[str, Any] = {"hidden": [16], "batch_size": 16, "rows": 500, "states": 100, "budget": 60, "matrix": 64}
    result = run("limits", rounds=1, device="cpu", steps=1000, **sizes)
    parts = ("update", "gather (in the update)", "relabel", "an epoch of a fit", "state entropy", "a minibatch of PPO")
    check(result, "limits", set(parts))
    assert [row[0] for row in result["table"]["rows"]] == list(parts)
    seconds = result["notes"]["seconds"]
    # 12 products of critics and 4 of the actor, of 16 rows; none of the layers' own
    work = 2 * 16 * (12 * (43 * 16 + 16) + 4 * (39 * 16 + 16 * 8))
    assert seconds["update"] == pytest.approx(1000 * work / 1e9 / result["cases"]["update"]["ours"])
    assert seconds["gather (in the update)"] == 0


def test_share() -> None:
    result = run("share", rounds=1, runs=[2], seconds=0.5, hidden=[16], batch_size=16, rows=500, device="cpu")
    check(result, "share", {"2_runs"})


def test_methods() -> None:
    sizes: dict[str, Any] = {"rows": 600, "labels": 12, "length": 8, "hidden": [16], "batch_size": 16, "updates": 2}
    result = run("methods", rounds=1, device="cpu", **sizes)
    check(result, "methods", {"rune_updates", "qpa_updates", "mrn_updates", "surf_fit", "rime_fit"})
    mrn, outer = result["cases"]["mrn_updates"], result["notes"]["mrn_outer_step_seconds"]
    assert 1000 / mrn["ours"] == pytest.approx(1000 / mrn["reference"] + outer)


def test_language(tmp_path: Path, ray_session: None) -> None:
    sizes: dict[str, Any] = {"draws": 1, "test_draws": 1, "pairs": 30, "horizon": 40, "hidden": [16], "epochs": 2}
    names: dict[str, Any] = {"tasks": "faucet-open, faucet-close", "new_tasks": "window-open", "encoder": "hashing"}
    result = run("language", device="cpu", data=str(tmp_path), **sizes, **names)
    check(result, "language", {"known_tasks", "new_tasks"})
    known = result["notes"]["known_tasks"]
    assert known["questions"] == 60 and known["held_out_wordings"] == result["cases"]["known_tasks"]["ours"]
    assert set(known["by_task"]) == {"faucet-open", "faucet-close"} and result["notes"]["fit"]["labels"] == 60


def test_few_shot(tmp_path: Path, ray_session: None) -> None:
    sizes: dict[str, Any] = {"draws": 3, "pairs": 70, "horizon": 40, "hidden": [16], "steps": 2, "labels": [4, 16, 32]}
    names = {"tasks": "reach, push", "new_tasks": "window-open"}
    result = run("few_shot", device="cpu", data=str(tmp_path), seeds=1, epochs=2, **sizes, **names)
    check(result, "few_shot", {"held_out_tasks", "window-open, 4 labels"})
    curves = result["notes"]["window-open"]
    assert result["cases"]["window-open, 4 labels"]["reference"] == curves["fresh"][1]
    assert RewardModel.load(tmp_path / "metaworld" / FILE).options.hidden == (16,)
    toy = run("few_shot", device="cpu", data=str(tmp_path), part="toy", pairs=70, steps=1)
    check(toy, "few_shot", {"held_out_tasks"})


def test_relabel() -> None:
    result = run("relabel", rounds=1, rows=3000, hidden=[32], device="cpu")
    check(result, "relabel", {"3000_transitions"})
    assert result["notes"]["largest_difference"] < 1e-5


def test_query() -> None:
    options: dict[str, Any] = {"candidates": 30, "centres": 20, "picks": 5, "length": 10, "steps": 400}
    result = run("query", rounds=1, device="cpu", **options)
    check(result, "query", {"k_center", "disagreement"})
    assert result["notes"]["k_center"] == {"same_picks": 5, "picks": 5}
    assert result["notes"]["disagreement"]["largest_difference"] < 1e-5


def test_reward() -> None:
    result = run("reward", rounds=2, labels=20, length=4, hidden=[16], batch_size=8, device="cpu")
    check(result, "reward", {"fit", "fit_loop", "fit_stacked"})
    assert result["notes"]["curves_apart"] < 1e-3
    against = {name: case["against"] for name, case in result["cases"].items()}
    assert against["fit"] in (against["fit_loop"], against["fit_stacked"])
    assert result["cases"]["fit"]["ratio"] == min(case["ratio"] for case in result["cases"].values())


@pytest.mark.slow
def test_learner_against_stock_rllib() -> None:
    result = run("learner", rounds=1, updates=8, rows=600, sizes=["2x256_b256"], ppo=False, device="cpu")
    stock = {f"2x256_b256_{which}_{part}" for which in ("stock", "smallest") for part in ("step", "learner")}
    check(result, "learner", {"2x256_b256", "2x256_b256_tuned"} | stock)


@pytest.mark.slow
def test_rollout_on_metaworld_with_envpool() -> None:
    pytest.importorskip("envpool")
    result = run("rollout", rounds=1, envs=2, fragments=2, fragment_length=10)
    names = {"one_actor", "2_actors", "one_actor_cpu", "one_actor_stock_metaworld"}
    check(result, "rollout", names | {"envpool", "envpool_cpu", "envpool_stock_metaworld", "envpool_two_threads"})


@pytest.mark.slow
def test_rollout() -> None:
    result = run("rollout", rounds=1, envs=2, fragments=2, fragment_length=10, suite="toy", task="point", actors=[2, 3])
    check(result, "rollout", {"one_actor", "2_actors", "3_actors", "one_actor_cpu"})
    assert {"efficiency_2_actors", "efficiency_3_actors"} <= set(result["notes"])


@pytest.mark.slow
def test_driver() -> None:
    """Fifty times the rows; were they copied or looked at, the driver would need many times as long."""
    result = run("driver", rounds=10)
    check(result, "driver", {"32000_transitions"})
    assert result["cases"]["32000_transitions"]["ratio"] > 0.5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_200_000_toy_steps_leave_the_drivers_memory_flat() -> None:
    result = run("memory")
    check(result, "memory", {"driver"})
    assert result["cases"]["driver"]["ratio"] < 1.05


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_end2end() -> None:
    small: dict[str, Any] = {"steps": 50, "visited": 600, "explore_batch": 64, "rows": 2500, "labels": 5, "epochs": 1}
    parts = ["unsupervised", "session", "steady_2x256_b256_half"]
    result = run("end2end", rounds=1, actors=1, parts=parts, **small)
    check(result, "end2end", {*parts, "session_standstill"})
    assert result["notes"]["steady_2x256_b256_half"]["bound"] > 0.95
    assert math.isclose(sum(result["notes"]["steady_2x256_b256_half"]["shares"].values()), 1.0)


@pytest.mark.slow
def test_serve_policy() -> None:
    small: dict[str, Any] = {"suite": "toy", "task": "point", "hidden": [16], "batch": 8, "clients": 2, "swaps": 2}
    result = run("serve", part="policy", rounds=1, seconds=2.0, **small)
    check(result, "serve_policy", {"single", "batched", "single_without_serve"})
    notes = result["notes"]
    assert [notes[load]["failed"] for load in ("one_client", "single", "batched", "swap")] == [0] * 4
    assert notes["swap"]["versions"] == 3
    assert 0 < notes["network_share_of_one_request"] < 1


@pytest.mark.slow
def test_serve_queue() -> None:
    result = run("serve", part="queue", annotators=6, questions=400, seconds=4.0, pause=0.5)
    check(result, "serve_queue", {"answers"})
    notes = result["notes"]
    wrong = ("failed_calls", "lost", "acknowledged_twice", "stored_twice", "leased_beyond_overlap")
    assert {name: notes[name] for name in wrong} == dict.fromkeys(wrong, 0), notes["first_failure"]
    assert notes["acknowledged"] >= 6 * 2 * 4 and notes["news"] > 0
    assert notes["at_peoples_pace"]["answer"]["p99_ms"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_controls(tmp_path: Any) -> None:
    overrides = ["total_steps=2200", "queries.budget=20", "queries.per_session=10", "evaluation.final_episodes=4"]
    given: dict[str, Any] = {"preset": "toy", "storage": str(tmp_path), "name": "small", "overrides": overrides}
    given["seeds"] = [3]
    result = run("controls", **given, only=["silent", "constant"])
    assert set(result["cases"]) == {"silent", "constant"}
    assert set(result["cases"]["silent"]) == {"ours", "reference", "ratio", "unit", "against"}
    assert result["notes"]["runs"]["small-s3-run"]["labels"] > 0
    assert result["notes"]["runs"]["small-s3-silent"]["labels"] == 0
    assert result["notes"]["success"]["seeds"] == [3]
    assert result["notes"]["success"]["run"] == [result["cases"]["silent"]["ours"]]
    finished = tmp_path / "small-s3-silent" / "summary.json"
    before = finished.stat().st_mtime_ns
    (tmp_path / "small-s3-run" / "summary.json").unlink()  # as if it had been cut off after its last checkpoint
    again = run("controls", **given, only=["silent", "constant"], at_once=2)
    assert finished.stat().st_mtime_ns == before, "a finished run is taken as it is"
    assert again["cases"]["silent"] == result["cases"]["silent"]
    assert json.loads((tmp_path / "small-s3-run" / "manifest.json").read_text())["resumes"]
    with pytest.raises(UserError, match="another config"):
        run("controls", **{**given, "overrides": [*overrides, "sac.tau=0.5"]}, only=["silent"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_controls_killed_leave_nothing_running(tmp_path: Any) -> None:
    words = ["preset=toy", f"storage={tmp_path}", "name=cut", "only=[silent]", "overrides=[total_steps=200000]"]
    bench = subprocess.Popen([sys.executable, "-m", "rayrlhf", "bench", "controls", *words])
    run = tmp_path / "cut-s0-run"
    try:
        deadline = time.monotonic() + 120
        while not (rows := run / "metrics.jsonl").exists() or not rows.stat().st_size:
            assert time.monotonic() < deadline and bench.poll() is None, "the run does not begin"
            time.sleep(0.5)
        children = psutil.Process(bench.pid).children()
        (training,) = (child for child in children if "spawn_main" in " ".join(child.cmdline()))
    finally:
        bench.kill()
    training.wait(timeout=60)
    assert list((run / "checkpoints").glob("step*")), "the run ended as with Ctrl-C"


@pytest.mark.parametrize("control", ["random", "silent"])
@pytest.mark.parametrize("told", [["teacher.mistake=0.1"], ["teacher.wait=true"], ["teacher.name=noisy"]])
def test_controls_forget_what_the_runs_own_teacher_was_told(control: str, told: list[str]) -> None:
    teacher = load_config("toy", [*told, *CONTROLS[control]]).teacher
    assert teacher == TeacherOptions(name=control)


def test_constant_actions_are_twenty_and_differ() -> None:
    actions = constant_actions(load_config("quickstart"), 20)
    assert actions.shape == (20, 4) and abs(actions).max() <= 1
    assert len({tuple(action) for action in actions.tolist()}) >= 18
    assert {tuple(action) for action in constant_actions(load_config("quickstart"), 20).tolist()} == {
        tuple(action) for action in actions.tolist()
    }


def test_a_constant_action_closes_the_drawer_and_standing_still_does_not() -> None:
    config = load_config("quickstart", ["env.task=drawer-close", "evaluation.final_episodes=3"])
    actions = constant_actions(config, 1)
    actions[0] = (0, 1, -1, 0)
    assert constant_success(config, actions[0]) == 1.0
    assert constant_success(config, 0 * actions[0]) == 0.0


def test_sides_take_turns_and_preparations_are_not_timed() -> None:
    calls: list[str] = []

    def side(name: str) -> Any:
        def work() -> float:
            calls.append(name)
            return 1.0

        return work

    rates = alternate({"a": side("a"), "b": side("b")}, rounds=4, warm_up=1, before={"b": side("before")})
    assert calls.count("a") == calls.count("b") == calls.count("before") == 5
    assert [len(rates.per_round[name]) for name in "ab"] == [4, 4]
    timed = [name for name in calls if name != "before"]
    assert {tuple(timed[i : i + 2]) for i in range(0, 10, 2)} == {("a", "b"), ("b", "a")}, "neither is always first"


def test_scale() -> None:
    result = run("scale", rounds=1, actors=(1, 5), processes=2, steps=20)
    check(result, "scale", {"5_actors"})
    assert [row[0] for row in result["table"]["rows"]] == ["1", "5"]


def test_no_ratio_to_nothing() -> None:
    assert Case(0.9, 0.0, "success rate", "nobody").row()["ratio"] is None


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("learners", {}, "did you mean 'learner'"),
        ("learner", {"round": 3}, "did you mean 'rounds'"),
        ("reward", {"rounds": 0}, "rounds=0"),
        ("query", {"device": "tpu"}, "device='tpu'"),
        ("serve", {"part": "polcy"}, "did you mean 'policy'"),
        ("serve", {"swap": 3}, "did you mean 'swaps'"),
    ],
)
def test_mistakes_are_one_line(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        run(name, **options)
    assert "\n" not in str(caught.value)


def test_every_name_has_a_module() -> None:
    for name in BENCHES:
        with pytest.raises(UserError, match="no option 'nonsense'"):
            run(name, nonsense=1)

#!/usr/bin/env python
"""Ours beside other programs on one task: wall-clock per environment step, and success after as many steps or labels.

    scripts/side_by_side.py [--seeds 0 1 2] [--only sb3_sac ours_sac] [--folder .peers] [--steps-scale 0.1]
                            [--at-once 2]

The task is MetaWorld v3's handle-press-side under the protocol of the preset `quickstart`: the goal is shown, objects
are drawn anew at each reset, the reward is V2, an action is repeated five times with its rewards summed, an episode has
20 actions, and it is solved if any step was a success. Each program trains with one torch thread and without a GPU, and
its deterministic policy is evaluated on 20 random starts. The programs are run one after the other, for each seed in
turn; what is in the folder already is not run again. With --at-once several run at a time: they say how often the task
is solved, and their times do not count. Virtual environments of the peers are made there from the requirements in
scripts/peers/, our own has RLlib. Where pip would take torch's large CUDA build, tell it through PIP_INDEX_URL or its
configuration where the CPU build is.

Settings are the presets' where both sides have them: hidden layers, batch, updates per step, learning rates, gamma,
tau, target entropy and first temperature, random or first steps (SAC); hidden layers, steps of an iteration,
environments, minibatch, epochs, learning rate, gamma, lambda, clip, first deviation, standardised observations (PPO);
members, layers, epochs, batch, learning rate, standardised inputs and rewards, candidates, length of a segment, how
many steps are asked about, and PrefPPO's questions a session (what learns from answers). What differs:

- The environment. Ours steps MetaWorld with less work around it and with a faster reset; peers step the plain package,
  as their users would. The program `environment` is that alone, with random actions, so that its part can be told.
- Our SAC explores by state entropy from step 1,000 to 4,000, on the true reward, too; peers learn from step 1,000 on.
  Our PPO explores for the first 4,000 steps.
- Our critics have layer normalisation; SB3 and RLlib have no option for it. Bounds of the policy's deviation differ.
- SB3 and RLlib collect and learn in turn, as does our SAC; our PPO learns while the next steps are collected.
- SB3's SAC acts with the newest weights at each step, the others with those of the last fragment of 50 steps.
- RLlib's critics have an encoder each for observation and action, then one layer, the smallest that it makes; it has no
  random first steps; its clip stays at 0.2, where ours and SB3's falls to 0; its first deviation is 1 instead of 0.6.
- `imitation` has no unsupervised exploration: its first questions are about 2,000 steps of the untrained policy, which
  are counted here beside PPO's own 120,000. It asks every 12,000 steps, our PrefPPO every 8,000 from step 4,000 on. Its
  clip stays at 0.2, its rewards are not bounded, standardised observations are not clipped, its members learn from
  answers drawn with replacement, by AdamW, and a fit has no accuracy at which it ends.
- SB3 steps its environments in one process or in one each, whichever a trial before training finds to be faster; ours
  and RLlib's are in two processes.
- Starts of the final evaluation are drawn alike but are not the same ones as ours.

Not counted as training: imports, starting processes, and the final evaluation. Of ours it is counted from the end of
the first round, and the time for that round added in proportion. Nothing is evaluated or saved during training, but for
our last checkpoint, which is counted.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
EPISODES, LABELS = 20, 100
SAC_STEPS, PPO_STEPS = 24_000, 120_000
NEVER = 10**9

_running: set[subprocess.Popen[bytes]] = set()
_making = threading.Lock()


@dataclass(frozen=True)
class Side:
    """A program in the comparison.

    of:       the peer, whose virtual environment it wants; `ours` is the one that this script runs in
    program:  the file among the peers' programs, or one of our presets
    against:  those of ours that it is compared with
    """

    of: str
    program: str
    steps: int
    labels: int = 0
    against: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it is one of our presets."""
        return not self.program.endswith(".py")


SIDES = {
    "ours_sac": Side("ours", "quickstart", SAC_STEPS),
    "sb3_sac": Side("sb3", "sb3_sac.py", SAC_STEPS, against=("ours_sac",)),
    "rllib_sac": Side("ours", "rllib_sac.py", SAC_STEPS, against=("ours_sac",)),
    "ours_ppo": Side("ours", "quickstart_ppo", PPO_STEPS),
    "sb3_ppo": Side("sb3", "sb3_ppo.py", PPO_STEPS, against=("ours_ppo",)),
    "rllib_ppo": Side("ours", "rllib_ppo.py", PPO_STEPS, against=("ours_ppo",)),
    "ours_pebble": Side("ours", "quickstart", SAC_STEPS, LABELS),
    "ours_prefppo": Side("ours", "quickstart_ppo", PPO_STEPS, LABELS),
    "imitation_ppo": Side("imitation", "imitation_ppo.py", PPO_STEPS, LABELS, against=("ours_prefppo", "ours_pebble")),
    "environment": Side("ours", "random_actions.py", SAC_STEPS),
}

Result = dict[str, Any]


class FailedError(Exception):
    """A program that did not come to its end; the message is one line."""


# --- virtual environments ---


def python_of(peer: str, folder: Path) -> Path:
    """The interpreter of the peer's virtual environment, which is made if it is not there as its requirements say."""
    if peer == "ours":
        return Path(sys.executable)
    place = folder / "environments" / peer
    python, ready = place / "bin" / "python", place / "ready.txt"
    wanted = [PEERS / f"{peer}.txt", PEERS / f"{peer}-alone.txt"]
    text = "".join(file.read_text() for file in wanted if file.exists())
    with _making:
        if not (ready.exists() and ready.read_text() == text):
            _make(place, wanted, folder / "environments" / f"{peer}.log")
            ready.write_text(text)
    return python


def _make(place: Path, wanted: list[Path], log: Path) -> None:
    """A virtual environment of what is `wanted`: with what that requires, and without."""
    python = place / "bin" / "python"
    print(f"making the virtual environment {place} (minutes)", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    run([sys.executable, "-m", "venv", str(place)], log)
    run([*install, "-r", str(wanted[0])], log)
    if wanted[1].exists():
        run([*install, "--no-deps", "-r", str(wanted[1])], log)
    run([str(python), str(PEERS / "check_environment.py")], log)


# --- one program ---


def run(command: list[str], log: Path, minutes: float | None = None) -> None:
    """Runs `command` to its end, with all its processes, whatever it prints going to `log`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            cwd=PEERS.parents[1],  # this rayrlhf, whichever is installed
            start_new_session=True,
        )
        _running.add(process)
        try:
            code = process.wait(None if minutes is None else 60 * minutes)
        except subprocess.TimeoutExpired:
            raise FailedError(f"not over after {minutes:g} minutes; see {log}") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            _running.discard(process)
    if code:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise FailedError(f"exit code {code}: {lines[-1][:200] if lines else 'no output'} (see {log})")


def train(name: str, seed: int, out: Path, options: argparse.Namespace) -> None:
    """Trains one program with one seed and writes its result to `out`."""
    side, scale = SIDES[name], options.steps_scale
    steps, labels = round(scale * side.steps), max(20, round(scale * side.labels)) if side.labels else 0
    python = python_of(side.of, options.folder)
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    if side.is_ours:
        runs = out.parent / f"{out.stem}-run"
        shutil.rmtree(runs, ignore_errors=True)
        words = _our_options(side, steps, labels, scale)
        words += ["--seed", str(seed), "--storage_path", str(runs), "--name", name, "--json"]
        run([str(python), "-m", "rayrlhf", "train", side.program, *words], log, options.minutes)
        result = _our_result(runs / name)
    else:
        found = out.with_suffix(".found")
        words = ["--steps", str(steps), "--seed", str(seed), "--episodes", str(EPISODES), "--labels", str(labels)]
        run([str(python), str(PEERS / side.program), *words, "--out", str(found)], log, options.minutes)
        result = json.loads(found.read_text())
        found.unlink()
    part = out.with_suffix(".part")
    part.write_text(json.dumps(result | {"timed": options.at_once == 1}, indent=1) + "\n")
    part.replace(out)


def _our_options(side: Side, steps: int, labels: int, scale: float) -> list[str]:
    """Overrides of the preset: how long, and nothing beside training."""
    given: dict[str, Any] = {
        "total_steps": steps,
        "mode": "preferences" if labels else "oracle",
        "evaluation.interval": NEVER,
        "evaluation.final_episodes": EPISODES,
        "evaluation.videos": 0,
        "checkpoint.interval": NEVER,
    }
    if scale != 1.0:
        is_ppo = side.program == "quickstart_ppo"
        given |= {
            "explore.seed_steps": round(scale * 1000),
            "explore.unsupervised_steps": round(scale * (4000 if is_ppo else 3000)),
            "queries.interval": round(scale * (8000 if is_ppo else 1050)),
            "queries.budget": labels or LABELS,
        }
    return [word for key, value in given.items() for word in (f"--{key}", str(value))]


def _our_result(run: Path) -> Result:
    """What a peer's program would have written of the run in this folder."""
    summary = json.loads((run / "summary.json").read_text())
    manifest = json.loads((run / "manifest.json").read_text())
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    first = next(event for event in events if event["event"] == "phase")
    last = next(event for event in events if event["event"] == "evaluating")
    seconds = (datetime.fromisoformat(last["time"]) - datetime.fromisoformat(first["time"])).total_seconds()
    steps = summary["env_steps"]
    return {
        "steps": steps,
        "labels": summary["labels"],
        "seconds_training": seconds * steps / (steps - first["env_steps"]),
        "seconds_total": summary["wall_seconds"],
        "success": summary["success_rate"],
        "true_return": summary["true_return_mean"],
        "versions": manifest.get("versions", {}),
    }


# --- all of them ---


def run_all(options: argparse.Namespace) -> list[str]:
    """Runs what has no result yet, every program with one seed before the next seed; what failed, a line each."""
    jobs = [(name, seed) for seed in options.seeds for name in options.only]

    def one(number: int, name: str, seed: int) -> str | None:
        out = place_of(name, seed, options.results)
        head = f"[{number}/{len(jobs)}] {name}, seed {seed}:"
        begin = time.monotonic()
        try:
            if not out.exists():
                print(head, "...", flush=True)
                train(name, seed, out, options)
            print(head, _in_words(json.loads(out.read_text())), f"({time.monotonic() - begin:.0f} s)", flush=True)
        except FailedError as failed:
            print(head, "failed,", failed, flush=True)
            return f"{name}, seed {seed}: {failed}"
        return None

    numbered = [(number, *job) for number, job in enumerate(jobs, 1)]
    if options.at_once == 1:
        found = [one(*job) for job in numbered]
    else:
        with ThreadPoolExecutor(options.at_once) as pool:
            try:
                found = list(pool.map(lambda job: one(*job), numbered))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in _running:
                    os.killpg(process.pid, signal.SIGTERM)
                raise
    return [failure for failure in found if failure is not None]


def place_of(name: str, seed: int, results: Path) -> Path:
    """The file of a result."""
    return results / name / f"seed-{seed}.json"


def _in_words(result: Result) -> str:
    success = "no success measured" if result["success"] is None else f"{result['success']:.0%} solved"
    time_of_one = f"{_ms(result):.2f} ms a step" if result.get("timed", True) else "beside another"
    return f"{result['steps']} steps, {time_of_one}, {success}"


def _ms(result: Result) -> float:
    return 1000.0 * float(result["seconds_training"]) / int(result["steps"])


def _median(values: Iterable[float]) -> float:
    """NaN of none."""
    found = list(values)
    return median(found) if found else float("nan")


# --- the table ---

HEADER = ("program", "steps", "labels", "ms / step", "times ours", "minutes", "times ours", f"solved of {EPISODES}")


def rows(options: argparse.Namespace) -> list[tuple[str, ...]]:
    """The table's, with the header first; of each program the median over its timed seeds, and every seed's success."""
    found: dict[str, list[Result]] = {}
    for name in SIDES:
        files = (place_of(name, seed, options.results) for seed in options.seeds)
        if results := [json.loads(file.read_text()) for file in files if file.exists()]:
            found[name] = results
    table: list[tuple[str, ...]] = [HEADER]
    for name, results in found.items():
        timed = {key: [result for result in found[key] if result.get("timed", True)] for key in found}
        minutes = {key: _median(result["seconds_training"] for result in timed[key]) / 60 for key in found}
        ms = {key: _median(map(_ms, timed[key])) for key in found}
        against = [other for other in SIDES[name].against if other in found]
        solved = (result["success"] for result in results)
        table.append(
            (
                name,
                _each(result["steps"] for result in results),
                _each(result["labels"] for result in results),
                f"{ms[name]:.2f}",
                ", ".join(f"{ms[name] / ms[other]:.2f} {other}" for other in against),
                f"{minutes[name]:.1f}",
                ", ".join(f"{minutes[name] / minutes[other]:.2f} {other}" for other in against),
                " / ".join("" if share is None else str(round(EPISODES * share)) for share in solved),
            )
        )
    return table


def _each(values: Any) -> str:
    """Different values, in order."""
    return " / ".join(f"{value:,}" for value in sorted(set(values)))


def as_text(table: list[tuple[str, ...]]) -> str:
    """The table with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(table: list[tuple[str, ...]]) -> str:
    """The table for a page."""
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    names = list(SIDES)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PROGRAM", help=", ".join(names))
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="for virtual environments and results")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="0.1: a check that all of it runs, no result")
    parser.add_argument("--at-once", type=int, default=1, help="programs at a time; with several no time counts")
    parser.add_argument("--minutes", type=float, default=120.0, help="that one training may take")
    options = parser.parse_args()
    if not 0.02 <= options.steps_scale <= 1.0:
        parser.error("--steps-scale: between 0.02 and 1")
    options.folder = options.folder.resolve()
    options.results = options.folder / ("results" if options.steps_scale == 1.0 else f"check-{options.steps_scale:g}")
    options.results.mkdir(parents=True, exist_ok=True)
    failures = run_all(options)
    table = rows(options)
    print(f"\n{as_text(table)}")
    for failure in failures:
        print(f"failed: {failure}")
    page = options.results / "table.md"
    page.write_text(f"{as_markdown(table)}\n")
    print(f"as Markdown: {page}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

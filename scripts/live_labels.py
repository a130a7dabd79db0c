#!/usr/bin/env python
"""A robot learns while a real browser answers: trains, opens the labelling page and answers by keyboard.

    scripts/live_labels.py [--preset people] [--seeds 0 1 2] [--pause 0.5] [--folder live] [-- overrides]

Whoever answers knows the true reward behind each clip and presses 1 or 2, after PAUSE seconds of looking; everything
else is as for a person: the link that training prints, headless Chromium, no call to the queue but the page's own. One
JSON row a seed: labels, answers, success, minutes, seconds that sessions took for the queue and its answers,
milliseconds from a key's press to the next pair (median, 95th percentile, the longest), and how many pairs are not in
these, since their clips had not come when the key was pressed. CHROMIUM names the browser.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Page, sync_playwright

from rayrlhf.bench.truth import Truth
from rayrlhf.tracking import RunDirectory

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LINK = re.compile(r"http://\S+/#token=\S+&run=\S+")
SHOWN = """() => document.querySelector("#choose-left").ariaDisabled === "false"
  ? {...(document.querySelector(".pair.active")?.dataset ?? {lease: null})} : null"""


KEYS = {"left": "1", "right": "2", "equal": "0"}


def answer(
    page: Page, run: RunDirectory, training: subprocess.Popen[bytes], pause: float, most: int
) -> tuple[list[float], list[float]]:
    """Answers until training ends; what the page measured: of pairs whose clips were there, and of the others."""
    truth, latencies, late = Truth(run), list[float](), list[float]()
    page.goto(link_of(run))
    given, last = 0, None
    while training.poll() is None and given < most:
        page.wait_for_timeout(100)
        try:
            # somebody sits there: a page with nobody takes no questions
            page.mouse.move(640 + time.monotonic() % 2, 360)
            shown = page.evaluate(SHOWN)
            if shown is None or shown["lease"] in (None, last):
                continue
            page.wait_for_timeout(1000 * pause)
            page.keyboard.press(KEYS[truth.prefers(shown["left"], shown["right"])])
            given, last = given + 1, shown["lease"]
            latencies = max(latencies, page.evaluate("rayrlhf.latencies"), key=len)
            late = max(late, page.evaluate("rayrlhf.late"), key=len)
        except Error:  # the run is over, and its page with it
            continue
    while training.poll() is None:
        time.sleep(0.2)
    return latencies, late


def link_of(run: RunDirectory) -> str:
    """The link that training prints for whoever answers."""
    log = run.path.parent / f"{run.path.name}.log"
    while not (found := LINK.search(text := log.read_text(errors="replace"))):
        if "rayrlhf: " in text:
            sys.exit(text)
        time.sleep(0.2)
    return found[0]


def live(seed: int, options: argparse.Namespace, browser: str) -> dict[str, Any]:
    """One run with its answers."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = RunDirectory(folder / f"{options.preset}-seed{seed}")
    words = [options.preset, "--teacher", "human", "--seed", str(seed), "--name", run.path.name]
    words += ["--storage_path", str(folder), "--people.port", "0", "--json", *options.overrides]
    log = run.path.parent / f"{run.path.name}.log"
    with log.open("wb") as out, sync_playwright() as playwright:
        training = subprocess.Popen([sys.executable, "-m", "rayrlhf", "train", *words], stdout=out, stderr=out)
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 720})
        latencies, late = map(sorted, answer(page, run, training, options.pause, options.most))
        chromium.close()
    summary = json.loads(log.read_text(errors="replace").splitlines()[-1])
    # a session's stand in the rows until the next
    by_session = {row["sessions"]: row.get("teacher_seconds") or 0.0 for row in run.metrics() if row.get("sessions")}
    return {
        "seed": seed,
        "labels": summary["labels"],
        "answers": summary["answers"],
        "success": summary["success_rate"],
        "minutes": summary["wall_seconds"] / 60,
        "teacher_seconds": sum(by_session.values()),
        "next_pair_ms": statistics.median(latencies) if latencies else None,
        "next_pair_ms_p95": latencies[int(0.95 * len(latencies))] if latencies else None,
        "next_pair_ms_most": latencies[-1] if latencies else None,
        "pairs_measured": len(latencies),
        "pairs_late": len(late),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="people")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pause", type=float, default=0.5)
    parser.add_argument("--most", type=int, default=100)
    parser.add_argument("--folder", default="live")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"there is no browser: install one of {', '.join(BROWSERS)}, or set CHROMIUM")
    for seed in options.seeds:
        print(json.dumps(live(seed, options, browser)), flush=True)


if __name__ == "__main__":
    main()

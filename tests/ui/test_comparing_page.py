"""The page of `rayrlhf plot --compare` in a browser, opened from disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_runs import make_run

from rayrlhf.envs.video import write_video
from rayrlhf.plotting import films
from rayrlhf.plotting.compare import compare_runs

pytestmark = pytest.mark.ui
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)<|script>"
PLAYS = """async () => { for (const video of document.querySelectorAll("video")) await video.play(); return true }"""


@pytest.fixture(params=[1_000_000, 10], ids=["within", "beside"])
def page_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A page with videos, in it or beside it."""
    monkeypatch.setattr(films, "EMBEDDED", request.param)
    for seed in range(2):
        make_run(tmp_path / HOSTILE, f"seed={seed}")
        make_run(tmp_path / "drawn", f"seed={seed}", "teacher.name=random")
    frames = np.zeros((30, 64, 64, 3), np.uint8)
    for run in [*(tmp_path / HOSTILE).iterdir(), *(tmp_path / "drawn").iterdir()]:
        write_video(run / "videos" / "step000004000.mp4", iter(frames), 20)
    return compare_runs([tmp_path / HOSTILE, tmp_path / "drawn"], out=tmp_path / "out")


@pytest.fixture(params=[("light", 1400), ("dark", 600)], ids=["light wide", "dark narrow"])
def opened(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page; at the end nothing may have asked anybody, failed or opened a dialog."""
    scheme, width = request.param
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page, wrong = context.new_page(), []
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("requestfailed", lambda asked: wrong.append(asked.url))
    page.on("request", lambda asked: asked.url.startswith(("data:", "file:")) or wrong.append(asked.url))
    page.goto(page_file.as_uri())
    yield page
    assert not wrong
    context.close()


def test_it_fits_shows_its_pictures_and_plays(opened: Any) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.get_by_role("img").count() == 5
    assert opened.evaluate(PLAYS)
    assert HOSTILE in opened.inner_text("h1")
    colours = opened.evaluate(
        "['--side-0', '--ground'].map((name) => getComputedStyle(document.body).getPropertyValue(name).trim())"
    )
    line = opened.evaluate("getComputedStyle(document.querySelector('figure.plot path[style*=\"--side-0\"]')).stroke")
    assert line.startswith("rgb") and len(set(colours)) == 2


def test_the_keyboard_reaches_tables_and_videos(opened: Any) -> None:
    reached = set()
    for _ in range(40):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate("document.activeElement.tagName + (document.activeElement.ariaLabel || '')"))
    assert {"DIVFinal numbers", "DIVEvery run", "DIVProbability of improvement"} <= reached
    assert any(name.startswith("VIDEO") for name in reached)

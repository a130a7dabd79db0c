"""A browser, where there is one, and visits to the labelling page."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from queue_server import Server

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium through Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"there is no browser: install one of {', '.join(NAMES)}, or set CHROMIUM")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page as somebody, each in a browser of their own; at the end nothing may have gone wrong in any."""
    from page_support import Visit

    visits: list[Visit] = []

    def one_more(role: str | None = "annotator", more: str = "", **context: Any) -> Visit:
        opened = browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **context})
        opened.set_default_timeout(60_000)
        visits.append(Visit(opened.new_page(), server))
        visits[-1].watch()
        if role is not None:
            visits[-1].open(server.tokens[role], more)
        return visits[-1]

    yield one_more
    for each in visits:
        each.page.context.close()
    for each in visits:
        each.check()

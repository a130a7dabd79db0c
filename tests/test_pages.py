"""What the pages name is there: files they link to, and options."""

import re
from pathlib import Path

import pytest

from rayrlhf.config.fields import keys

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
GROUPS = {key.partition(".")[0] for key in keys() if "." in key}


def name_of(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (DOCS / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_exist(page: Path) -> None:
    named = re.findall(r"`(?:--)?([a-z_]+\.[a-z_]+)[`= ]", page.read_text())
    named += re.findall(r" --([a-z_]+\.[a-z_-]+)", page.read_text())
    options = [name.replace("-", "_") for name in named if not name.endswith(".sqlite")]
    assert not [name for name in options if name.partition(".")[0] in GROUPS and name not in keys()]


def test_the_index_names_every_page() -> None:
    assert set(re.findall(r"^- \[([\w-]+\.md)\]", (DOCS / "README.md").read_text(), re.MULTILINE)) == {
        page.name for page in PAGES if page.name != "README.md"
    }

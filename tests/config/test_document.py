"""The page of options says what the code says."""

from pathlib import Path

import pytest

from rayrlhf.config.document import options_page
from rayrlhf.config.fields import keys
from rayrlhf.config.load import preset_names

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == options_page(), "run: python -m rayrlhf.config.document > docs/options.md"


@pytest.mark.parametrize("name", [*keys(), *preset_names()])
def test_every_option_and_preset_has_one_row(name: str) -> None:
    rows = [line for line in options_page().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    assert not rows[0].endswith("|  |"), "it says what it is for"


def test_defaults_are_written_as_overrides_write_them() -> None:
    page = options_page()
    assert "| `sac.hidden` | `256,256,256` |" in page
    assert "| `rollout.synchronous` | `false` |" in page
    assert "| `explore.from` | `none` |" in page

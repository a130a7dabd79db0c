"""Links and the accounts behind them, whatever happens in between."""

from pathlib import Path

import numpy as np
import pytest

from rayrlhf.config import QueueOptions
from rayrlhf.envs.video import write_video
from rayrlhf.errors import UserError
from rayrlhf.preferences.pairs import Pair
from rayrlhf.preferences.store import Accounts, Database, PreferenceStore, Reports
from rayrlhf.serving.labelling import Place
from rayrlhf.serving.links import link, tokens_of
from rayrlhf.serving.pairs import ask_pairs, write_labels

WANTED = {"training": "trainer", "admin": "admin", "anna": "annotator", "ben": "annotator"}


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(Database(str(tmp_path / "queue.sqlite")))


def test_links_stay_and_are_their_owners(accounts: Accounts, tmp_path: Path) -> None:
    file = tmp_path / "links.json"
    tokens = tokens_of(accounts, WANTED, file)
    assert {name: accounts.who(token).role for name, token in tokens.items()} == WANTED
    assert tokens_of(accounts, WANTED, file) == tokens
    file.chmod(0o644)
    assert tokens_of(accounts, {**WANTED, "cleo": "annotator"}, file).items() > tokens.items()
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_was_given_another_link_or_was_disabled_keeps_it_so(accounts: Accounts, tmp_path: Path) -> None:
    """And what serves the queue itself goes on with new tokens."""
    file = tmp_path / "links.json"
    tokens = tokens_of(accounts, WANTED, file)
    new = accounts.renew("anna")
    accounts.disable("ben")
    accounts.renew("training")
    accounts.disable("admin")
    again = tokens_of(accounts, WANTED, file)
    assert again.keys() == {"training", "admin"}
    assert {name: accounts.who(token).role for name, token in again.items()} == {
        "training": "trainer",
        "admin": "admin",
    }
    assert accounts.who(new).name == "anna" and accounts.who(tokens["ben"]) is None


def test_a_crash_between_the_file_and_the_accounts(accounts: Accounts, tmp_path: Path) -> None:
    file = tmp_path / "links.json"
    tokens = tokens_of(accounts, WANTED, file)
    other = Accounts(Database(str(tmp_path / "other.sqlite")))
    other.add("anna", "annotator", tokens["anna"])  # and no further
    assert tokens_of(other, WANTED, file) == tokens
    file.write_text("{")
    with pytest.raises(UserError, match="is damaged: move it away"):
        tokens_of(other, WANTED, file)
    file.unlink()
    assert tokens_of(other, WANTED, file).keys() == {"training", "admin"}


def test_names_in_links() -> None:
    assert link("http://h", "t", "my run+1&x") == "http://h/#token=t&run=my%20run%2B1%26x"


def test_other_clips_of_the_same_name_are_other_questions(tmp_path: Path) -> None:
    """So nobody's answer is taken for one to clips that they never saw."""
    place = Place.of_folder(tmp_path / "labels")
    asked = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for side, shade in (("left", 10), ("right", 200)):
            frames = [np.full((16, 16, 3), shade + number, np.uint8)] * 4
            write_video(folder / f"{side}.mp4", frames, 5.0)
        pair = Pair("x", folder / "left.mp4", folder / "right.mp4")
        asked.append(
            ask_pairs(place, tmp_path, "clips", [pair], QueueOptions(settle_seconds=0), sentence="s", guidelines="")
        )
    database = Database(place.database)
    store, reports = PreferenceStore(database), Reports(database)
    for lease in store.lease("clips", "anna", 1):
        store.answer("anna", lease.id, "equal", key="the key")
    decided = [write_labels(tmp_path / f"{i}.jsonl", reports, "clips", each) for i, each in enumerate(asked)]
    assert sorted(decided) == [0, 1]

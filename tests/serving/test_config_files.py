"""The files in `serve/`: Ray Serve's, and ours in `args`."""

import hashlib
import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from rayrlhf.config.options import Options
from rayrlhf.errors import UserError
from rayrlhf.preferences.store import Accounts, Annotator, Database
from rayrlhf.serving import apps
from rayrlhf.serving.settings import QueueSettings

FOLDER = Path(__file__).parents[2] / "serve"
FILES = sorted(FOLDER.glob("*.yaml"))


def applications(file: Path) -> list[tuple[type[Options], dict[str, Any]]]:
    """The kind of settings that each application of a file takes, and what the file gives it."""
    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    found = []
    for application in schema.applications:
        module, name = application.import_path.split(":")
        assert module == apps.__name__
        hints = get_type_hints(getattr(apps, name))  # by which Serve makes the argument
        assert hints.pop("return") is Application
        [kind] = hints.values()
        found.append((kind, application.args))
    return found


def test_all_three_are_there() -> None:
    assert [file.stem for file in FILES] == ["cluster", "local", "policy"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_one_of_serves_and_of_ours(file: Path) -> None:
    for kind, args in applications(file):
        kind.model_validate(args)
        with pytest.raises(UserError, match=r"^unknown key 'wacth'") as refused:
            kind.model_validate({**args, "wacth": True})
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_only_the_clusters_listens_beyond_this_machine_and_wants_tokens(file: Path) -> None:
    host = yaml.safe_load(file.read_text())["http_options"]["host"]
    assert host == ("0.0.0.0" if file.stem == "cluster" else "127.0.0.1")
    if file.stem == "cluster":
        assert all(args.get("token_digests") or args.get("admin_digest") for _, args in applications(file))


def test_the_first_account_of_a_queue(tmp_path: Path) -> None:
    """Its token is not in the file; another digest ends it."""
    for token in ("first", "second"):
        settings = QueueSettings(
            database=str(tmp_path / "queue.sqlite"),
            clips=str(tmp_path),
            admin_digest=hashlib.sha256(token.encode()).hexdigest(),
        )
        apps.queue(settings)
        accounts = Accounts(Database(settings.database))
        assert accounts.who(token) == Annotator("admin", "admin")
    assert accounts.who("first") is None


def test_the_first_tokens_in_a_file(tmp_path: Path) -> None:
    links = tmp_path / "links.json"
    settings = QueueSettings(database=str(tmp_path / "queue.sqlite"), clips=str(tmp_path), links=str(links))
    for _ in range(2):
        apps.queue(settings)
        tokens = json.loads(links.read_text())
        accounts = Accounts(Database(settings.database))
        assert {accounts.who(token).role for token in tokens.values()} == {"admin", "trainer"}
        assert links.stat().st_mode & 0o077 == 0, "tokens are for their owner's eyes"


@pytest.mark.parametrize(
    ("given", "message"), [({}, "nobody could come in"), ({"admin_digest": "0" * 64}, "belongs to no token")]
)
def test_a_queue_into_which_nobody_could_come_is_refused(tmp_path: Path, given: dict[str, str], message: str) -> None:
    settings = QueueSettings(database=str(tmp_path / "queue.sqlite"), clips=str(tmp_path), **given)
    with pytest.raises(UserError, match=message):
        apps.queue(settings)

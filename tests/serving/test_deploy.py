"""What a replica of the queue refuses before it answers anything."""

from pathlib import Path

import pytest
import ray

from rayrlhf.errors import UserError
from rayrlhf.serving.deploy import _build
from rayrlhf.serving.settings import QueueSettings


@pytest.fixture
def set_nodes(monkeypatch: pytest.MonkeyPatch):
    """Says which nodes Ray's cluster has, by whether they are alive."""

    def nodes(*alive: bool) -> None:
        monkeypatch.setattr(
            ray, "nodes", lambda: [{"NodeManagerAddress": f"192.0.2.{i}", "Alive": one} for i, one in enumerate(alive)]
        )

    return nodes


def test_an_sqlite_file_is_refused_on_a_cluster_of_several_nodes(set_nodes, tmp_path: Path) -> None:
    for database in (str(tmp_path / "queue.sqlite"), f"sqlite:///{tmp_path}/queue.sqlite"):
        settings = QueueSettings(database=database, clips=str(tmp_path))
        set_nodes(True, True)
        with pytest.raises(UserError, match=r"2 nodes cannot share an SQLite file.*postgresql://"):
            _build(settings)
        assert list(tmp_path.iterdir()) == [], "the file is not even made"
    set_nodes(True, False)  # of those that have gone nothing is shared
    assert _build(settings).title == "rayrlhf queue"


def test_postgresql_serves_several_nodes(set_nodes, postgres, tmp_path: Path) -> None:
    set_nodes(True, True)
    settings = QueueSettings(database=postgres.new_database(), clips=str(tmp_path))
    assert _build(settings).title == "rayrlhf queue"

"""`serve deploy serve/cluster.yaml` on a real cluster of several nodes, which loses one."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from app_server import free_port
from local_cluster import Cluster, started
from postgres import Postgres

import rayrlhf
from rayrlhf.bench.bucket import KEYS, Storage
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Question, Run
from rayrlhf.tracking import RunDirectory

SERVE = Path(__file__).parents[2] / "serve"
PACKAGE = Path(rayrlhf.__file__).parent
TOKEN = "the admin's token in this test"
MP4 = b"\0\0\0\x18ftypisom and so on"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def alive(cluster: Cluster, what: str) -> list[dict[str, Any]]:
    """Ray's own list of the actors or nodes that live."""
    words = ["list", what, "--address", cluster.url, "--filter", "state=ALIVE", "--format", "json", "--limit", "200"]
    done = subprocess.run(["ray", *words], env=cluster.env, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def nodes_of_replicas(cluster: Cluster, lost: int | None = None) -> list[int]:
    """The numbers of the nodes that have the three replicas (0: the head), once these are there and Ray knows of a
    node that was lost.
    """
    end = time.monotonic() + 240
    while True:
        numbers = {node["node_id"]: int(node["node_ip"].rpartition(".")[2]) - 2 for node in alive(cluster, "nodes")}
        on = [one["node_id"] for one in alive(cluster, "actors") if "ServeReplica" in one["class_name"]]
        if len(on) == 3 and set(on) <= numbers.keys() and lost not in numbers.values():
            return [numbers[node] for node in on]
        assert time.monotonic() < end, (on, numbers)
        time.sleep(1)


def test_the_queue_and_the_policy_on_several_nodes(
    toy_run: RunDirectory, s3_server: Storage, postgres: Postgres, tmp_path: Path
) -> None:
    port, digest = free_port(), hashlib.sha256(TOKEN.encode()).hexdigest()
    text = (SERVE / "cluster.yaml").read_text()
    for old, new in {
        "postgresql://rayrlhf@db.example/rayrlhf": postgres.new_database(),
        "s3://bucket/clips": s3_server.url("clips"),
        "/mnt/runs/drawer-open-pebble-seed0": str(toy_run.path),
        "0" * 64: digest,
        "8000": str(port),
        "EveryNode": "HeadOnly",  # the nodes here are one machine, which has the port once
        "0.0.0.0": "127.0.0.1",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "serve.yaml").write_text(text)
    with started(Path(sys.executable).parent, {"PYTHONPATH": str(PACKAGE.parent), **KEYS}) as cluster:
        command = ["serve", "deploy", "serve.yaml", "--address", cluster.url]
        done = subprocess.run(command, env=cluster.env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        before = nodes_of_replicas(cluster)
        assert len(set(before)) > 1
        url = f"http://127.0.0.1:{port}"
        with QueueClient(url, TOKEN, patience=120) as admin:
            tokens = {role: admin.add_account(role, role) for role in ("trainer", "annotator")}
        with (
            QueueClient(url, tokens["trainer"], patience=120) as trainer,
            QueueClient(url, tokens["annotator"], patience=120) as person,
        ):
            trainer.register(Run("run", "point", "go there"))
            clip = trainer.store_clip(MP4)
            assert s3_server.read(f"clips/{clip}") == MP4
            trainer.enqueue("run", [Question(f"q{i:02d}", 0, i, left_clip=clip, right_clip=clip) for i in range(40)])

            def answer(count: int) -> None:
                for _ in range(count):
                    [shown] = person.lease("run")
                    assert person.clip(shown.left_clip) == MP4
                    person.answer(shown.lease, "equal")

            answer(20)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            card = httpx.get(f"{url}/policy/v1/models", headers=headers, timeout=60)
            assert card.status_code == 200 and "drawer-open" in card.text
            cluster.script("kill", str(max(before)))
            answer(20)
            assert len(nodes_of_replicas(cluster, lost=max(before))) == 3
            assert len(list(trainer.answered("run"))) == 40

"""What Prometheus reads of a real head node is what the table, the page and the dashboard say."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ray_head import Head, labels, value

from rayrlhf.tracking.ray_metrics import ENTRIES

ROOT = Path(__file__).parents[2]
PROGRAM = str(ROOT / "tests" / "seen.py")
DASHBOARD = json.loads((ROOT / "clusters" / "grafana" / "rayrlhf.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

pytestmark = pytest.mark.timeout(600)


def names_in(queries: list[str]) -> set[str]:
    return {name for query in queries for name in re.findall(r"\bray_\w+", query)}


def series_of(role: str) -> set[str]:
    """Names of series that Prometheus has of a role's metrics."""
    ends = {"histogram": ("_bucket", "_sum", "_count")}
    return {entry.exported + end for entry in ENTRIES if entry.role == role for end in ends.get(entry.kind, ("",))}


OURS = series_of("training") | series_of("queue") | series_of("policy")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    head = Head()
    yield head
    head.stop()


def said(process: subprocess.Popen[str], word: str) -> None:
    """Reads what a process prints until `word` is a line of it."""
    assert process.stdout is not None
    lines = []
    while not lines or lines[-1].strip() != word:
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)


def end(process: subprocess.Popen[str]) -> None:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out


@pytest.fixture(scope="module")
def trained(head: Head, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A run that was trained in the cluster, and what Prometheus could read meanwhile."""
    folder = tmp_path_factory.mktemp("trained")
    process = head.run(PROGRAM, "train", str(folder))
    found = head.metrics_with(series_of("training"))
    process.send_signal(signal.SIGINT)
    end(process)
    return folder / "runs" / "seen", found


def test_every_training_metric_is_exported_under_its_name(trained: tuple[Path, dict[str, list[str]]]) -> None:
    run, found = trained
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for entry in ENTRIES:
        if entry.role != "training":
            continue
        (line,) = found[entry.exported]
        assert {"run": "seen", "role": "training", "task": "point"}.items() <= labels(line).items()
        assert entry.key is not None
        if entry.key in rows[-1] and not entry.name.endswith("_per_second"):
            assert any(value(line) == pytest.approx(row.get(entry.key)) for row in rows), entry.name
    assert value(found["ray_rayrlhf_label_budget"][0]) == 12


@pytest.mark.slow
def test_the_queue_is_counted(head: Head, tmp_path: Path) -> None:
    process = head.run(PROGRAM, "queue", str(tmp_path))
    said(process, "asked")
    wanted = series_of("queue") | {name for name in names_in(QUERIES) if name.startswith("ray_serve_num_http")}
    found = head.metrics_with(wanted)
    (leases,), (answers,) = found["ray_rayrlhf_queue_leases_total"], found["ray_rayrlhf_queue_answers_total"]
    assert {"run": "asked", "role": "queue"}.items() <= labels(leases).items()
    assert (value(leases), value(answers)) == (3, 2)
    assert value(found["ray_rayrlhf_queue_answer_seconds_count"][0]) == 2
    statuses = {labels(line)["status"] for line in found["ray_rayrlhf_queue_questions"]}
    assert statuses == {"open", "leased", "label", "skip", "disputed", "expired"}
    assert any(labels(line)["application"] == "queue" for line in found["ray_serve_num_http_requests_total"])
    end(process)


@pytest.mark.slow
def test_the_policy_endpoint_is_counted_and_the_dashboard_asks_for_what_there_is(
    head: Head, trained: tuple[Path, dict[str, list[str]]]
) -> None:
    run, _ = trained
    arguments = ["serve", str(run), "--port=0", "--json"]
    process = head.run("-m", "rayrlhf", *arguments)
    assert process.stdout is not None
    url = next(json.loads(line)["url"] for line in process.stdout if line.startswith("{"))
    card = httpx.get(f"{url}/v1/models/point", trust_env=False).json()
    obs = [0.0] * card["observation"]["width"]
    answer = httpx.post(f"{url}/v1/act", json={"obs": obs}, trust_env=False)
    assert answer.status_code == 200, answer.text
    exchanged = series_of("policy") - {"ray_rayrlhf_policy_exchanges_total"}  # until one is
    there = {name for name in names_in(QUERIES) if not name.startswith("ray_rayrlhf")}
    (line,) = head.metrics_with(exchanged | there)["ray_rayrlhf_policy_env_steps"]
    assert value(line) == card["env_steps"]
    assert {"run": "seen", "role": "policy", "task": "point", "model": "point"}.items() <= labels(line).items()
    process.terminate()
    process.wait(60)


def test_the_dashboard_uses_our_names_and_its_variables() -> None:
    assert {name for name in names_in(QUERIES) if name.startswith("ray_rayrlhf")} <= OURS
    shown = names_in(QUERIES)
    assert [entry.name for entry in ENTRIES if not any(name.startswith(entry.exported) for name in shown)] == []
    for query in QUERIES:
        assert "ray_rayrlhf" not in query or '{run=~"$run"}' in query, query
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and "run" in variables
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_page_tells_of_every_metric(entry: object) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert f"| `{entry.exported}` | {entry.kind} | {entry.unit} | {entry.description} |" in page  # type: ignore[attr-defined]

"""The policy's endpoint over HTTP: what it computes, and what it refuses. Without Serve, whose part is small."""

import asyncio
import io
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from app_server import AppServer

from rayrlhf.algorithms import checkpoint
from rayrlhf.errors import UserError
from rayrlhf.policies.export import WRITERS
from rayrlhf.preferences.store import digest_of
from rayrlhf.rewards import RewardScorer
from rayrlhf.serving.policy import build_app
from rayrlhf.serving.policy_settings import PolicySettings
from rayrlhf.serving.shelf import Ask, Shelf, Version, act_on_all
from rayrlhf.tracking import RunDirectory
from rayrlhf.trained import Trained, load_newest

RNG = np.random.default_rng(0)
OBS = RNG.normal(size=(8, 4)).astype(np.float32)
ACTION = RNG.uniform(-1, 1, size=(8, 2)).astype(np.float32)


@pytest.fixture
def make_policy(toy_run: RunDirectory) -> Iterator[Callable[..., AppServer]]:
    """Serves the toy's policy, with these settings besides."""
    made: list[AppServer] = []

    def one_more(**given: object) -> AppServer:
        settings = PolicySettings.model_validate({"models": {"point": str(toy_run.path)}, **given})
        made.append(AppServer(build_app(settings, Shelf(settings.models))))
        return made[-1]

    yield one_more
    for server in made:
        server.stop()


@pytest.fixture
def url(make_policy: Callable[..., AppServer]) -> str:
    return make_policy().url


@pytest.fixture
def trained(toy_run: RunDirectory) -> Trained:
    return load_newest(toy_run.path)


@pytest.fixture
def copy(toy_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """The toy's run, to be damaged."""
    return RunDirectory(Path(shutil.copytree(toy_run.path, tmp_path / "copy")))


def post(url: str, path: str, **body: object) -> dict[str, object]:
    answer = httpx.post(f"{url}/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# --- what it computes ---


def test_one_observation_is_a_row_of_many_and_what_the_actor_does(url: str, trained: Trained) -> None:
    with torch.inference_mode():
        expected = trained.actor.act(torch.from_numpy(OBS), None).numpy()
    many = post(url, "act", obs=OBS.tolist())
    single = post(url, "act", obs=OBS[3].tolist(), task="point")
    np.testing.assert_allclose(many["action"], expected, atol=1e-6)
    np.testing.assert_allclose(single["action"], expected[3], atol=1e-6)
    assert np.ptp(expected, axis=0).min() > 0.01, "the observations are told apart"
    assert single["task"] == "point" and single["version"] == many["version"] == trained.version


def test_an_exported_policy_gives_the_endpoints_actions(url: str, trained: Trained, tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(WRITERS["onnx"](trained.deployed(), 4, trained.card()))
    script = torch.jit.load(io.BytesIO(WRITERS["torchscript"](trained.deployed(), 4, trained.card())))
    served = post(url, "act", obs=OBS.tolist())["action"]
    np.testing.assert_allclose(session.run(["action"], {"obs": OBS})[0], served, atol=1e-5)
    np.testing.assert_allclose(script(torch.from_numpy(OBS)), served, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["version"] == trained.version


def test_a_seed_draws_the_same_sample_again(url: str) -> None:
    def drawn(**given: object) -> object:
        return post(url, "act", obs=OBS.tolist(), deterministic=False, **given)["action"]

    assert drawn(seed=7) == drawn(seed=7)
    assert drawn(seed=7) != drawn(seed=8)
    assert drawn() != drawn()
    one = post(url, "act", obs=OBS[0].tolist(), deterministic=False, seed=7)["action"]
    np.testing.assert_allclose(one, drawn(seed=7)[0], atol=1e-6)  # type: ignore[index]
    assert post(url, "act", obs=OBS.tolist())["action"] != drawn(seed=7)


def test_rewards_are_the_ensembles(url: str, trained: Trained) -> None:
    scorer = RewardScorer(trained.config.reward, 4, 2, threads=1)
    assert trained.ensemble is not None
    scorer.load(trained.ensemble)
    segments = post(url, "reward", obs=OBS.reshape(2, 4, 4).tolist(), action=ACTION.reshape(2, 4, 2).tolist())
    np.testing.assert_allclose(np.ravel(segments["reward"]), scorer.score(OBS, ACTION), atol=1e-6)
    members = scorer.member_scores(OBS, ACTION).numpy().reshape(-1, 2, 4)
    np.testing.assert_allclose(segments["disagreement"], members.std(0), atol=1e-6)
    np.testing.assert_allclose(segments["sum"], members.mean(0).sum(1), atol=1e-5)
    np.testing.assert_allclose(segments["sum_disagreement"], members.sum(2).std(0), atol=1e-5)
    assert members.std(0).min() > 0
    one = post(url, "reward", obs=OBS[:4].tolist(), action=ACTION[:4].tolist())
    np.testing.assert_allclose(one["reward"], segments["reward"][0], atol=1e-6)  # type: ignore[index]
    assert one["sum"] == pytest.approx(segments["sum"][0])  # type: ignore[index]


def test_a_checkpoint_from_before_the_first_label_has_no_reward(
    make_policy: Callable[..., AppServer], toy_run: RunDirectory
) -> None:
    first = checkpoint.by_age(toy_run.checkpoints)[-1]
    url = make_policy(models={"early": str(first)}).url
    answer = httpx.post(f"{url}/v1/reward", json={"obs": OBS.tolist(), "action": ACTION.tolist()})
    assert (answer.status_code, answer.json()["why"]) == (409, "conflict")
    assert "early has no fitted reward" in answer.json()["detail"]
    assert len(post(url, "act", obs=OBS[0].tolist())["action"]) == 2  # type: ignore[arg-type]


def test_cards(url: str, trained: Trained, toy_run: RunDirectory) -> None:
    assert httpx.get(f"{url}/v1/models").json() == {"models": ["point"]}
    card = httpx.get(f"{url}/v1/models/point").json()
    summary = toy_run.summary()
    assert summary is not None
    assert card["version"] == trained.version and card["env_steps"] == 1000 and card["labels"] == 12
    layout = {"width": 2, "low": [-1, -1], "high": [1, 1], "units": "the simulator's own", "repeat": 1}
    assert card["action"] == layout
    assert (card["task"], card["env"], card["observation"]["width"]) == ("point", {"suite": "toy", "horizon": 50}, 4)
    assert card["measured"]["success_rate"] == summary["success_rate"] and card["measured"]["episodes"] == 2


def test_a_card_tells_the_last_evaluation_before_its_checkpoint(toy_run: RunDirectory) -> None:
    measured = [
        Trained.load(toy_run, place).card()["measured"] for place in reversed(checkpoint.by_age(toy_run.checkpoints))
    ]
    assert measured[0] is None, "none came before the first checkpoint"
    assert 500 <= measured[-2]["env_steps"] < 1000
    rows = {row["env_steps"]: row for row in toy_run.metrics()}
    assert measured[-2]["true_return_mean"] == rows[measured[-2]["env_steps"]]["true_return_mean"]


def test_several_policies(make_policy: Callable[..., AppServer], toy_run: RunDirectory) -> None:
    old, new = (str(place) for place in (checkpoint.by_age(toy_run.checkpoints)[-1], toy_run.path))
    url = make_policy(models={"old": old, "new": new}).url
    found = {task: post(url, "act", obs=OBS[0].tolist(), task=task) for task in ("old", "new")}
    assert found["old"]["action"] != found["new"]["action"]
    assert httpx.post(f"{url}/v1/act", json={"obs": OBS[0].tolist()}).status_code == 422
    chosen = {"serve_multiplexed_model_id": "old"}
    by_header = httpx.post(f"{url}/v1/act", json={"obs": OBS[0].tolist()}, headers=chosen).json()
    assert by_header == found["old"]
    wrong = httpx.post(f"{url}/v1/act", json={"obs": OBS[0].tolist(), "task": "nev"})
    assert wrong.status_code == 404 and "did you mean 'new'" in wrong.json()["detail"]


def test_what_is_gathered_is_answered_one_by_one(toy_run: RunDirectory) -> None:
    """Of two versions, sampled and not, in any order."""
    places = checkpoint.by_age(toy_run.checkpoints)
    versions = [Version.of(Trained.load(toy_run, place)) for place in (places[0], places[-1])]
    noise = [None, versions[0].noise(1, 3)[0], None, versions[0].noise(1, 4)[0]]
    asks = [Ask(versions[i % 2], OBS[i], noise[i % 4]) for i in range(8)]
    alone = [act_on_all([ask])[0] for ask in asks]
    np.testing.assert_allclose(act_on_all(asks), alone, atol=1e-6)
    assert len({tuple(action) for action in alone}) == 8


# --- what it refuses ---


HOSTILE = [
    (b"{", 422),
    (b"[]", 422),
    (b"\xff\xfe\x00", 400),
    (b"[" * 100_000, 400),
    (b'{"obs": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    (b'{"obs": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}", 422),
    (b"{}", 422),
    (b'{"obs": null}', 422),
    (b'{"obs": 1}', 422),
    (b'{"obs": []}', 422),
    (b'{"obs": [[]]}', 422),
    (b'{"obs": {"0": 1}}', 422),
    (b'{"obs": [1, 2, 3]}', 422),
    (b'{"obs": [[[1, 2, 3, 4]]]}', 422),
    (b'{"obs": [[1, 2, 3, 4], [1, 2, 3]]}', 422),
    (b'{"obs": [1, 2, 3, NaN]}', 422),
    (b'{"obs": [1, 2, 3, Infinity]}', 422),
    (b'{"obs": [1, 2, 3, 1e39]}', 422),
    (b'{"obs": [1, 2, 3, ' + b"9" * 400 + b"]}", 422),
    (b'{"obs": [1, 2, 3, ' + b"9" * 5000 + b"]}", 400),
    (b'{"obs": [1, 2, 3, "4"]}', 422),
    (b'{"obs": ["' + b"x" * 100_000 + b'"' + b', ""' * 200_000 + b"]}", 422),
    (b'{"obs": [1, 2, 3, [4]]}', 422),
    (b'{"obs": [1, 2, 3, null]}', 422),
    (b'{"obs": [true, true, true, true]}', 422),
    (b'{"obs": [1, 2, 3, 4], "seed": 1}', 422),
    (b'{"obs": [1, 2, 3, 4], "deterministic": false, "seed": -1}', 422),
    (b'{"obs": [1, 2, 3, 4], "deterministic": false, "seed": 1e300}', 422),
    (b'{"obs": [1, 2, 3, 4], "task": "../../etc/passwd"}', 404),
    (b'{"obs": [1, 2, 3, 4], "task": "\\u0000"}', 404),
    (b'{"obs": [1, 2, 3, 4], "task": "' + b"x" * 5000 + b'"}', 422),
    (b'{"obs": [1, 2, 3, 4], "path": "/etc/passwd"}', 422),
    (b'{"obs": [' + b"[1, 2, 3, 4]," * 20 + b"[1, 2, 3, 4]]}", 422),
]


@pytest.mark.parametrize(("body", "status"), HOSTILE)
def test_hostile_bodies_are_refused_in_one_line(
    make_policy: Callable[..., AppServer], body: bytes, status: int
) -> None:
    url = make_policy(most_rows=20).url
    answer = httpx.post(f"{url}/v1/act", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"why", "detail"}
    assert "\n" not in said["detail"] and len(said["detail"]) < 300
    assert len(post(url, "act", obs=[1, 2, 3, 4])["action"]) == 2, "and it goes on"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("obs", "action"),
    [
        (OBS, ACTION[:7]),
        (OBS, ACTION.reshape(2, 4, 2)),
        (OBS, OBS),
        (ACTION, ACTION),
        (OBS[0], ACTION[0]),
        (OBS[:0], ACTION[:0]),
    ],
)
def test_segments_that_do_not_fit_are_refused(url: str, obs: np.ndarray, action: np.ndarray) -> None:
    answer = httpx.post(f"{url}/v1/reward", json={"obs": obs.tolist(), "action": action.tolist()})
    assert (answer.status_code, answer.json()["why"]) == (422, "invalid"), answer.text


@pytest.mark.parametrize("path", ["/v1/models/..%2f..%2fetc%2fpasswd", "/v1/models/%00", "/v1/none", "/", "/docs"])
def test_nothing_else_is_there(url: str, path: str) -> None:
    assert httpx.get(url + path).status_code == 404


def test_tokens(make_policy: Callable[..., AppServer]) -> None:
    url = make_policy(token_digests=[digest_of("the right one"), digest_of("another")]).url
    assert httpx.get(f"{url}/v1/health").json()["status"] == "ok"
    for path in ("models", "models/point", "openapi.json", "act", "none", "healthy"):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": "Basic x"},
        ):
            refused = httpx.post(f"{url}/v1/{path}", headers=headers, content=b"{")
            assert (refused.status_code, refused.json()["why"]) == (401, "token")
    for token in ("the right one", "another"):
        good = httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {token}"})
        assert good.json() == {"models": ["point"]}


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8422"}, 200),
        ({"Host": "[::1]:8422", "Origin": "http://127.0.0.1:3000"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.rebound.example:80"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_without_tokens_no_page_in_a_browser_can_call(url: str, named: dict[str, str], status: int) -> None:
    """Neither across origins, nor by a name of its own that leads to this machine."""
    answer = httpx.get(f"{url}/v1/models", headers=named)
    assert answer.status_code == status, answer.text
    assert httpx.get(f"{url}/v1/health", headers=named).status_code == 200


def test_with_tokens_it_goes_by_any_name(make_policy: Callable[..., AppServer]) -> None:
    url = make_policy(token_digests=[digest_of("a")]).url
    headers = {"Authorization": "Bearer a", "Host": "robots.example.org", "Origin": "https://example.org"}
    assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


def test_whoever_calls_too_often_waits(make_policy: Callable[..., AppServer]) -> None:
    digests = [digest_of(token) for token in ("a", "b")]
    url = make_policy(requests_per_second=1.0, burst=3, token_digests=digests).url
    headers = {token: {"Authorization": f"Bearer {token}"} for token in ("a", "b")}
    found = [httpx.get(f"{url}/v1/models", headers=headers["a"]) for _ in range(5)]
    assert [answer.status_code for answer in found[:3]] == [200] * 3
    assert found[-1].status_code == 429 and int(found[-1].headers["retry-after"]) >= 1
    assert httpx.get(f"{url}/v1/models", headers=headers["b"]).status_code == 200


def test_a_body_that_is_too_large_is_not_read(make_policy: Callable[..., AppServer]) -> None:
    url = make_policy(body_bytes=2000).url
    answer = httpx.post(f"{url}/v1/act", json={"obs": [[0.5] * 4] * 500})
    assert (answer.status_code, answer.json()["why"]) == (413, "size")


def test_more_at_once_than_it_can_work_on_come_again(make_policy: Callable[..., AppServer]) -> None:
    url = make_policy(at_once=2).url

    def slowly() -> Iterator[bytes]:
        for byte in b'{"obs":[1]}':
            time.sleep(0.1)
            yield bytes([byte])

    with ThreadPoolExecutor(2) as slow:
        as_json = {"Content-Type": "application/json"}
        sent = [slow.submit(httpx.post, f"{url}/v1/act", content=slowly(), headers=as_json) for _ in range(2)]
        time.sleep(0.5)
        busy = httpx.get(f"{url}/v1/models")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{url}/v1/health").status_code == 200, "it lives"
        assert [one.result().status_code for one in sent] == [422, 422]


def test_it_is_ready_once_a_policy_is_loaded(url: str) -> None:
    assert httpx.get(f"{url}/v1/ready").status_code == 503
    post(url, "act", obs=OBS[0].tolist())
    assert httpx.get(f"{url}/v1/ready").json() == {"status": "ready"}


# --- exchanging checkpoints ---


def _damage(place: Path, name: str = "learner.safetensors") -> None:
    content = bytearray((place / name).read_bytes())
    content[len(content) // 2] ^= 1
    (place / name).write_bytes(content)


def test_a_run_is_followed_and_what_is_damaged_passed_over(copy: RunDirectory, tmp_path: Path) -> None:
    later = [place.rename(tmp_path / place.name) for place in checkpoint.by_age(copy.checkpoints)[:3]]
    shelf = Shelf({"point": str(copy.path)})
    model = asyncio.run(shelf.load("point"))
    first = model.current
    assert first.card["env_steps"] == 250
    shelf.follow()
    assert model.current is first, "nothing new"
    newest, middle, older = later
    (copy.checkpoints / ".step-000000000500.part").mkdir()
    older.rename(copy.checkpoints / older.name)
    shelf.follow()
    assert model.current.card["checkpoint"] == older.name
    held = model.current
    _damage(middle)
    middle.rename(copy.checkpoints / middle.name)
    shelf.follow()
    assert model.current is held, "a flipped bit"
    half = copy.checkpoints / newest.name
    half.mkdir()
    for file in ("manifest.json", "learner.safetensors"):
        shutil.copy(newest / file, half)
    shelf.follow()
    assert model.current is held, "half of it"
    shutil.copytree(newest, half, dirs_exist_ok=True)
    shelf.follow()
    assert model.current.card["checkpoint"] == newest.name, "whole now"


@pytest.mark.parametrize("lost", ["checkpoints", "config.yaml", ""])
def test_a_run_that_is_taken_away_is_served_on(copy: RunDirectory, lost: str) -> None:
    shelf = Shelf({"point": str(copy.path)})
    model = asyncio.run(shelf.load("point"))
    held = model.current
    (copy.path / lost).rename(copy.path.parent / "gone")
    shelf.follow()
    assert model.current is held


def test_a_checkpoint_of_the_same_name_is_another_one(copy: RunDirectory, toy_run: RunDirectory) -> None:
    """A resumed run writes its steps once more."""
    newest, other = checkpoint.by_age(copy.checkpoints)[:2]
    shelf = Shelf({"point": str(copy.path)})
    model = asyncio.run(shelf.load("point"))
    before = model.current
    shutil.rmtree(newest)
    other.rename(newest)
    shelf.follow()
    assert model.current.card["checkpoint"] == before.card["checkpoint"]
    assert model.current.id != before.id


def test_checkpoints_deleted_while_they_are_read(
    copy: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Training prunes: the one that was chosen is gone, and there is a newer one."""
    newer = checkpoint.by_age(copy.checkpoints)[0].rename(tmp_path / "newer")
    name = "step-000000001000"
    verify = checkpoint.verify

    def verify_and_lose(folder: Path, *args: object, **given: object) -> object:
        manifest = verify(folder, *args, **given)  # type: ignore[arg-type]
        if newer.exists():
            for place in checkpoint.by_age(copy.checkpoints):
                shutil.rmtree(place)
            newer.rename(copy.checkpoints / name)
        return manifest

    monkeypatch.setattr(checkpoint, "verify", verify_and_lose)
    assert load_newest(copy.path).place.name == name


def test_nothing_whole_is_one_line(copy: RunDirectory) -> None:
    for place in checkpoint.by_age(copy.checkpoints):
        _damage(place)
    with pytest.raises(UserError, match="no whole checkpoint") as refused:
        load_newest(copy.path)
    assert "\n" not in str(refused.value)
    shutil.rmtree(copy.checkpoints)
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_newest(copy.path)


def test_another_checkpoint_may_take_a_names_place(copy: RunDirectory, toy_run: RunDirectory) -> None:
    places = checkpoint.by_age(toy_run.checkpoints)
    shelf = Shelf({"point": str(places[0])})
    model = asyncio.run(shelf.load("point"))
    shelf.aim({"point": str(places[1])})
    assert model.current.card["checkpoint"] == places[1].name
    _damage(checkpoint.by_age(copy.checkpoints)[0])
    held = model.current
    shelf.aim({"point": str(checkpoint.by_age(copy.checkpoints)[0]), "nobody": str(copy.path)})
    assert model.current is held
    assert shelf.names == ["point"]


def test_settings_are_refused_in_one_line() -> None:
    for given, says in (
        ({"models": {"a": "b"}, "tokens": []}, "unknown key 'tokens'"),
        ({"models": {"a": "b"}, "wach": True}, "did you mean 'watch'"),
        ({"models": {}}, "models"),
        ({}, "models"),
        ({"models": {"../a": "b"}}, "models"),
        ({"models": {"a": "b"}, "token_digests": ["secret"]}, "token_digests"),
        ({"models": {"a": "b"}, "min_replicas": 3, "max_replicas": 2}, "min_replicas"),
    ):
        with pytest.raises(UserError, match=says) as refused:
            PolicySettings.model_validate(given)
        assert "\n" not in str(refused.value)


def test_a_policy_of_one_task_takes_no_instruction(url: str) -> None:
    answer = httpx.post(f"{url}/v1/act", json={"obs": OBS.tolist(), "instruction": "Go."})
    assert answer.status_code == 422 and answer.json()["detail"] == "this policy takes no instruction"

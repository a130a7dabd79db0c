"""The queue over HTTP: what it does, and what it refuses."""

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import rayrlhf
from rayrlhf.config import QueueOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Curves, Question, RefusedError, Run, UnavailableError
from rayrlhf.preferences.wire import QUEUE_HEADER, Account, Doing, Health
from rayrlhf.serving import streams

CLIP = "0123456789abcdef" * 2 + ".mp4"
MP4 = b"\0\0\0\x18ftyp"
"""What makes the queue take a file for an MP4."""


def fill(client: QueueClient, count: int = 3, run: str = "run", **options: object) -> None:
    chosen = QueueOptions(**{"settle_seconds": 0.0, **options})
    client.register(Run(run, "drawer-open", "open the drawer", "be kind", chosen))
    client.enqueue(run, [Question(f"{run}/0/{i}", 0, i) for i in range(count)])


def test_from_a_question_to_its_label(server) -> None:
    with server.client("trainer") as trainer, server.client() as annotator:
        fill(trainer, settle_seconds=1.0)
        [lease] = annotator.lease("run")
        assert 290 < lease.seconds_left <= 300
        stored = annotator.answer(lease.lease, "equal", seconds=2.5, replays=1)
        assert annotator.undo(stored.answer).lease == lease.lease
        annotator.answer(lease.lease, "skip")
        assert trainer.decisions("run") == []
        time.sleep(1.1)
        [decision] = trainer.decisions("run")
        assert (decision.query_id, decision.status, decision.votes[0].annotator) == ("run/0/0", "skip", "the annotator")
        assert trainer.decisions("run", ["run/0/0"]) == []
        assert annotator.progress("run").open == 2
        assert [person.answers for person in annotator.people("run")] == [1]
        assert trainer.agreement("run") is None
        assert [item.query_id for item in trainer.answered("run")] == ["run/0/0"]
        trainer.note("run", Doing(phase="exploring", env_steps=10, total_steps=100, next_questions_at=50))
        [info] = annotator.runs()
        assert (info.sentence, info.guidelines, info.open, info.mine) == ("open the drawer", "be kind", 2, 1)
        assert info.doing["next_questions_at"] == 50


def test_a_question_may_say_what_the_robot_is_to_do(server) -> None:
    """Where it says nothing the run's sentence is meant; what was said first stays."""
    with server.client("trainer") as trainer, server.client() as annotator:
        fill(trainer, 0)
        told = [Question("run/1/0", 1, 0, instruction="close the drawer"), Question("run/1/1", 1, 1)]
        trainer.enqueue("run", told)
        trainer.enqueue("run", [Question("run/1/0", 1, 0, instruction="something else"), told[1]])
        assert [lease.instruction for lease in annotator.lease("run", 2)] == ["close the drawer", None]


def test_what_is_meant_for_another_queue_is_refused(server) -> None:
    """Numbers of leases and answers begin anew in each: an answer to the one before would be another question's."""
    with server.client("trainer") as trainer, server.client() as annotator:
        fill(trainer, settle_seconds=60)
        [lease] = annotator.lease("run")
        said = {"lease": lease.lease, "choice": "left", "key": "12345678"}
        queue = annotator.me().queue
        calls = [("POST", "/v1/answers", said), ("POST", "/v1/runs/run/leases", {}), ("DELETE", "/v1/answers/1", None)]
        token = {"Authorization": f"Bearer {server.tokens['annotator']}"}
        for named, status in (("0" * 32, 409), ("", 409), (queue, 200)):
            for method, path, body in calls:
                headers = {**token, QUEUE_HEADER: named}
                found = httpx.request(method, server.url + path, json=body, headers=headers)
                assert found.status_code == status, (path, named, found.text)
                assert status == 200 or found.json()["why"] == "elsewhere"
            assert len(list(trainer.answered("run"))) == 0
        annotator.answer(lease.lease, "left")  # whoever names none is taken at their word


def test_more_questions_than_one_request_takes(server) -> None:
    with server.client("trainer") as trainer:
        fill(trainer, 2500)
        assert trainer.progress("run").open == 2500


def test_annotators_learn_nothing_of_what_a_question_is_for(server) -> None:
    with server.client("trainer") as trainer:
        fill(trainer, 1, gold_every=2)
        trainer.enqueue("run", [Question("the gold one", 0, 0, gold="left")])
    headers = {"Authorization": f"Bearer {server.tokens['annotator']}"}
    shown = httpx.post(f"{server.url}/v1/runs/run/leases", json={"count": 2}, headers=headers)
    assert len(shown.json()) == 2
    with server.client() as annotator, server.client("trainer") as trainer:
        for lease in shown.json():
            annotator.answer(lease["lease"], "left")
        [own] = annotator.people("run")
        assert (own.answers, own.gold) == (2, (0, 0))
        assert trainer.people("run")[0].gold[1] == 1
    assert {key for lease in shown.json() for key in lease} == {
        "lease",
        "left_clip",
        "right_clip",
        "seconds_left",
        "instruction",
    }


def routes(server) -> list[tuple[str, str]]:
    with server.client("admin") as admin:
        found = admin._send("GET", "/v1/openapi.json", None, {}).json()
    listed = [(method.upper(), path) for path, methods in found["paths"].items() for method in methods]
    assert len(listed) > 15
    return listed


def test_nothing_but_health_answers_without_a_token(server) -> None:
    for path in ("/v1/health", "/v1/ready"):
        assert httpx.get(server.url + path).status_code == 200
    for method, path in routes(server):
        if path in ("/v1/health", "/v1/ready"):
            continue
        url = server.url + path.format(run="run", number=1, clip=CLIP, name="x")
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic eDp5"},
            {"Authorization": "Bearer"},
        ):
            answer = httpx.request(method, url, headers=headers, content=b"{")
            assert answer.status_code == 401, (method, path, headers)
            assert answer.json()["why"] == "token"
    for path in ("/docs", "/redoc", "/openapi.json", "/pages", "/v1/none"):
        assert httpx.get(server.url + path).status_code == 401


def test_health(server) -> None:
    with server.client() as annotator:
        assert annotator.health() == Health("ok", rayrlhf.__version__)
        with pytest.raises(UserError, match="403"):
            annotator.accounts()


def test_roles(server) -> None:
    with server.client() as annotator, server.client("trainer") as trainer, server.client("admin") as admin:
        with pytest.raises(UserError, match="403"):
            fill(annotator)
        with pytest.raises(UserError, match="403"):
            trainer.lease("run")
        with pytest.raises(UserError, match="403"):
            trainer.add_account("ben", "annotator")
        fill(admin)
        assert len(admin.lease("run")) == 1
        with QueueClient(server.url, admin.add_account("ben", "annotator")) as ben:
            assert ben.me().name == "ben"
            with pytest.raises(RefusedError, match="cannot end itself"):
                admin.disable_account("the admin")
            with pytest.raises(RefusedError, match="there is no account"):
                admin.disable_account("nobody")
            assert Account("ben", "annotator", usable=True) in admin.accounts()
            admin.disable_account("ben")
            assert Account("ben", "annotator", usable=False) in admin.accounts()
            with pytest.raises(UserError, match="401"):
                ben.me()
        with QueueClient(server.url, admin.renew_token("ben")) as ben:
            assert ben.me().name == "ben"


def test_refusals_arrive_as_the_stores_own(server) -> None:
    with server.client("trainer") as trainer, server.client() as annotator:
        fill(trainer)
        [lease] = annotator.lease("run")
        annotator.answer(lease.lease, "left")
        for call, why in (
            (lambda: annotator.answer(lease.lease, "left"), "conflict"),
            (lambda: annotator.answer(999, "left"), "unknown"),
            (lambda: annotator.lease("no such run"), "unknown"),
            (lambda: annotator.undo(999), "unknown"),
            (lambda: trainer.note("no such run", Doing(phase="x")), "unknown"),
        ):
            with pytest.raises(RefusedError) as refused:
                call()
            assert refused.value.why == why
        trainer.decisions("run")
        with pytest.raises(RefusedError) as refused:
            annotator.undo(1)
        assert refused.value.why == "late"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/answers", b"{", 422),
        ("POST", "/v1/answers", b"[]", 422),
        ("POST", "/v1/answers", b'{"lease": 1, "choice": "both", "key": "12345678"}', 422),
        ("POST", "/v1/answers", b'{"lease": 1, "choice": "left", "key": "../../etc"}', 422),
        ("POST", "/v1/answers", b'{"lease": 1e99, "choice": "left", "key": "12345678"}', 422),
        ("POST", "/v1/answers", b'{"lease": 1, "choice": "left", "key": "12345678", "seconds": NaN}', 422),
        ("POST", "/v1/answers", b'{"lease": 1, "choice": "left", "key": "12345678", "annotator": "ben"}', 422),
        ("POST", "/v1/answers", b"\xff\xfe\x00", 400),
        ("DELETE", "/v1/answers/0", None, 422),
        ("DELETE", "/v1/answers/99999999999999999999", None, 422),
        ("POST", "/v1/runs/run/leases", b'{"count": 1000000}', 422),
        ("POST", "/v1/runs/%00/leases", b"{}", 422),
        ("POST", "/v1/runs/" + "x" * 5000 + "/leases", b"{}", 422),
        ("GET", "/v1/clips/..%2f..%2fetc%2fpasswd", None, 404),
        ("GET", "/v1/clips/%2e%2e", None, 404),
        ("GET", f"/v1/clips/{CLIP}", None, 404),
        ("GET", "/v1/runs/run/answered?limit=1000000", None, 422),
        ("GET", "/v1/runs/run/answered?status=none", None, 422),
        ("GET", "/v1/runs/run/answered?before=nan", None, 422),
        ("GET", "/v1/runs/run/answered?annotator=%00", None, 422),
        ("GET", "/v1/runs/run/answered?before=1&before_id=%00", None, 422),
        ("DELETE", "/v1/accounts/%00", None, 422),
        ("POST", "/v1/runs", b'{"name": "a/b", "task": "", "sentence": ""}', 422),
        ("POST", "/v1/runs", b'{"name": "..", "task": "", "sentence": ""}', 422),
        ("POST", "/v1/runs", b'{"name": "a", "task": "x\\u0000", "sentence": ""}', 422),
        ("POST", "/v1/runs", b'{"name": "a", "task": "", "sentence": "", "options": {"max_answers": 1e30}}', 422),
        ("PATCH", "/v1/answers", None, 405),
    ],
)
def test_hostile_requests_are_refused_in_one_line(
    server, method: str, path: str, body: bytes | None, status: int
) -> None:
    headers = {"Authorization": f"Bearer {server.tokens['admin']}", "Content-Type": "application/json"}
    answer = httpx.request(method, server.url + path, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"why", "detail"}
    assert "\n" not in said["detail"] and len(said["detail"]) < 300


def test_a_body_that_is_too_large_is_not_read(make_server: Callable[..., object]) -> None:
    server = make_server(body_bytes=10_000)
    headers = {"Authorization": f"Bearer {server.tokens['trainer']}", "Content-Type": "application/json"}

    def chunks():
        for _ in range(100):
            yield b" " * 1000

    for content in (b" " * 20_000, chunks()):
        answer = httpx.post(f"{server.url}/v1/runs", content=content, headers=headers)
        assert (answer.status_code, answer.json()["why"]) == (413, "size")


def test_an_account_that_asks_too_often_waits(make_server: Callable[..., object]) -> None:
    server = make_server(requests_per_second=0.2, burst=5)
    headers = {name: {"Authorization": f"Bearer {server.tokens[name]}"} for name in ("annotator", "trainer")}
    found = [httpx.get(f"{server.url}/v1/me", headers=headers["annotator"]) for _ in range(12)]
    assert [answer.status_code for answer in found][:5] == [200] * 5
    assert found[-1].status_code == 429 and int(found[-1].headers["retry-after"]) >= 1
    assert httpx.get(f"{server.url}/v1/me", headers=headers["trainer"]).status_code == 200
    with server.client(patience=30) as client:
        assert client.me().name == "the annotator", "the client waits and comes again"


def test_more_at_once_than_it_can_work_on_come_again(make_server: Callable[..., object]) -> None:
    server = make_server(at_once=2)
    headers = {"Authorization": f"Bearer {server.tokens['annotator']}"}

    def slowly():
        for byte in b'{"count": 1}':
            time.sleep(0.1)
            yield bytes([byte])

    with ThreadPoolExecutor(2) as slow:
        url, as_json = f"{server.url}/v1/runs/none/leases", {**headers, "Content-Type": "application/json"}
        sent = [slow.submit(httpx.post, url, content=slowly(), headers=as_json) for _ in range(2)]
        time.sleep(0.5)
        busy = httpx.get(f"{server.url}/v1/runs", headers=headers)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        for path in ("/v1/runs/none/events", "/events"):
            assert httpx.get(f"{server.url}{path}", headers=headers).status_code == 503
        assert httpx.get(f"{server.url}/v1/health").status_code == 200, "it lives"
        assert [one.result().status_code for one in sent] == [404, 404]
    with ThreadPoolExecutor(16) as people, server.client(patience=60) as client:
        assert all(run == [] for run in people.map(lambda _: client.runs(), range(100)))


def test_a_server_that_is_away_is_asked_again(server) -> None:
    with server.client("trainer") as trainer, server.client(patience=60) as annotator:
        fill(trainer)
        [lease] = annotator.lease("run")
        server.stop()
        with server.client(patience=0.3) as impatient, pytest.raises(UnavailableError, match="does not answer"):
            impatient.me()
        threading.Timer(1.0, server.start).start()
        stored = annotator.answer(lease.lease, "left")
        assert stored.answer == 1
    for url in ("nowhere", "http://", "ftp://host"):
        with QueueClient(url, "x", patience=0.1) as lost, pytest.raises(UserError):
            lost.me()


def test_clips_whole_and_in_part(server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    (tmp_path / "clips" / CLIP).write_bytes(content)
    (tmp_path / "clips" / "secret.mp4").write_bytes(b"x")
    with server.client() as client:
        assert client.clip(CLIP) == content
    headers = {"Authorization": f"Bearer {server.tokens['annotator']}"}
    size = len(content)
    for wanted, start, stop in (
        ("bytes=0-0", 0, 1), ("bytes=5-99", 5, 100), ("bytes=1000-", 1000, size), ("bytes=-7", size - 7, size),
        (f"bytes=10-{size + 5}", 10, size), (f"bytes=-{size + 5}", 0, size),
    ):  # fmt: skip
        part = httpx.get(f"{server.url}/v1/clips/{CLIP}", headers={**headers, "Range": wanted})
        assert part.status_code == 206
        assert part.content == content[start:stop]
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    for wanted in (
        f"bytes={size}-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=a-b",
        f"bytes={10**30}-",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-1,3-4",
        "bytes=-",
    ):
        refused = httpx.get(f"{server.url}/v1/clips/{CLIP}", headers={**headers, "Range": wanted})
        assert refused.status_code == 416, wanted
        assert refused.headers["content-range"] == f"bytes */{size}"
    other_unit = httpx.get(f"{server.url}/v1/clips/{CLIP}", headers={**headers, "Range": "items=0-1"})
    assert (other_unit.status_code, other_unit.content) == (200, content)
    assert httpx.get(f"{server.url}/v1/clips/secret.mp4", headers=headers).status_code == 404


def test_news_come_by_themselves(server) -> None:
    with server.client("trainer") as trainer, server.client(patience=2) as annotator:
        fill(trainer, 1)
        news = annotator.events("run")
        assert next(news)["open"] == 1
        trainer.enqueue("run", [Question("another", 0, 7)])
        assert next(news)["open"] == 2
        trainer.note("run", Doing(phase="learning"))
        assert next(news)["doing"]["phase"] == "learning"
        with pytest.raises(RefusedError, match="none"):
            next(annotator.events("none"))
        server.stop()
        with pytest.raises(UnavailableError, match=r"broke off|does not answer"):
            next(news)


def test_everybody_is_told_their_own_number(server) -> None:
    """Streams share what is read of the store."""
    with server.client("trainer") as trainer, server.client() as one, server.client("admin") as other:
        fill(trainer, 3)
        streams = [client.events("run") for client in (one, other, one)]
        assert [next(stream)["mine"] for stream in streams] == [0, 0, 0]
        one.answer(one.lease("run")[0].lease, "equal")
        told = [next(stream) for stream in streams]
        assert [(news["answers"], news["mine"]) for news in told] == [(1, 1), (1, 0), (1, 1)]


def test_news_end_with_the_stream(server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_LOOKS", 1)
    with server.client("trainer") as trainer:
        fill(trainer, 1)
        assert [news["open"] for news in trainer.events("run")] == [1]


def test_streams_of_events_are_few(server) -> None:
    headers = {"Authorization": f"Bearer {server.tokens['annotator']}"}
    with server.client("trainer") as trainer, ExitStack() as open_streams:
        fill(trainer, 1)
        url = f"{server.url}/v1/runs/run/events"
        found = [open_streams.enter_context(httpx.stream("GET", url, headers=headers)) for _ in range(4)]
        lines = [stream.iter_lines() for stream in found]
        assert [next(each) for each in lines] == ["event: news"] * 4
        assert httpx.get(url, headers=headers, timeout=5).status_code == 429


def test_a_stream_of_events_takes_nobodys_place(make_server: Callable[..., object]) -> None:
    server = make_server(at_once=2)
    with server.client("trainer") as trainer, server.client("annotator") as annotator:
        fill(trainer, 1)
        streams_of_three = [client.events("run") for client in (annotator, annotator, trainer)]
        assert [next(stream)["open"] for stream in streams_of_three] == [1, 1, 1]
        assert annotator.progress("run").open == 1


def test_the_export_is_everything_answered(server) -> None:
    with server.client("trainer") as trainer, server.client() as annotator:
        fill(trainer, 230)
        for lease in [lease for _ in range(23) for lease in _answered(annotator)]:
            assert lease
        found = list(trainer.export("run"))
        assert found == list(trainer.answered("run"))
        with pytest.raises(UserError, match="403"):
            next(annotator.export("run"))
    assert {item.query_id for item in found} == {f"run/0/{i}" for i in range(230)}
    assert all(item.votes[0].annotator == "the annotator" for item in found)


def _answered(annotator: QueueClient) -> list[int]:
    leases = [lease.lease for lease in annotator.lease("run", 10)]
    for lease in leases:
        annotator.answer(lease, "equal")
    return leases


def test_a_clip_is_stored_under_the_hash_of_its_content(server, tmp_path: Path) -> None:
    content = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 100
    with server.client("trainer") as trainer, server.client() as annotator:
        name = trainer.store_clip(content)
        assert trainer.store_clip(content) == name
        assert annotator.clip(name) == content
        assert [path.name for path in (tmp_path / "clips").iterdir()] == [name]
        with pytest.raises(UserError, match="403"):
            annotator.store_clip(content)
        with pytest.raises(UserError, match="MP4"):
            trainer.store_clip(b"<script>")
        headers = {"Authorization": f"Bearer {server.tokens['trainer']}", "Content-Type": "video/mp4"}
        for wrong in (CLIP, "..%2F..%2Fetc%2Fpasswd", "%00", name.replace(".mp4", "")):
            refused = httpx.put(f"{server.url}/v1/clips/{wrong}", content=content, headers=headers)
            assert refused.status_code in (404, 422), wrong
        assert [path.name for path in (tmp_path / "clips").iterdir()] == [name]


def test_a_folder_that_cannot_be_written_is_for_later(make_server: Callable[..., object]) -> None:
    server = make_server(clips="/proc/none")
    with server.client("trainer", patience=0.1) as trainer, pytest.raises(UnavailableError, match="cannot be stored"):
        trainer.store_clip(b"\0\0\0\x18ftypisom")


def test_the_learned_reward_goes_with_what_is_answered(server) -> None:
    with server.client("trainer") as trainer, server.client() as annotator:
        fill(trainer, 2)
        drawn = Curves("run/0/0", 3, (0.5, -1.0), (0.25, 2.0))
        trainer.keep_curves("run", [drawn, Curves("nobody knows", 1, (0.0,), (0.0,))])
        _answered(annotator)
        found = {item.query_id: item.curves for item in trainer.answered("run")}
        assert found == {"run/0/0": drawn, "run/0/1": None}
        with pytest.raises(UserError, match="403"):
            annotator.keep_curves("run", [drawn])


def test_which_clips_are_wanted_is_said_until_they_are_there(server) -> None:
    questions = [Question(f"q{i}", 0, i, ready=i > 1) for i in range(3)]
    with server.client("trainer") as trainer:
        fill(trainer, 0)
        assert trainer.enqueue("run", questions) == ["q0", "q1"]
        clip = trainer.store_clip(MP4)
        trainer.clips_made("run", "q0", clip, clip)
        assert trainer.enqueue("run", questions) == ["q1"]
        trainer.withdraw("run", "q1")
        assert trainer.enqueue("run", questions) == []
        progress = trainer.progress("run")
        assert (progress.open, progress.unready, progress.skip) == (2, 0, 1)


def test_lost_clips_are_wanted_again_and_their_questions_not_asked_until_then(server) -> None:
    """As of a run that goes on at another machine. What people are asked whose clips are there is not touched."""
    asked = [Question(f"q{i}", 0, i, ready=False) for i in range(2)]
    with server.client("trainer") as trainer, server.client() as annotator:
        fill(trainer, 0)
        trainer.enqueue("run", asked)
        clips = [trainer.store_clip(MP4 + bytes([i])) for i in range(2)]
        for question, clip in zip(asked, clips, strict=True):
            trainer.clips_made("run", question.id, clip, clip)
        [lease] = annotator.lease("run")
        annotator.answer(lease.lease, "skip")
        (Path(server.settings.clips) / clips[1]).unlink()
        again = [question for question in asked if question.id == "q1"]
        assert trainer.enqueue("run", asked) == ["q1"] == trainer.enqueue("run", again)
        progress = trainer.progress("run")
        assert progress.unready == 1 and annotator.lease("run") == []
        assert trainer.store_clip(MP4 + bytes([1])) == clips[1]
        trainer.clips_made("run", "q1", clips[1], clips[1])
        assert [shown.left_clip for shown in annotator.lease("run")] == [clips[1]]


def test_another_run_of_the_same_name_is_refused(server) -> None:
    """It would be handed answers to questions that are not its own."""
    with server.client("trainer") as trainer:
        first = Run("run", "t", "s", identity="one")
        trainer.register(first)
        trainer.register(first)
        with pytest.raises(RefusedError, match="another run asks as 'run'") as refused:
            trainer.register(Run("run", "t", "s", identity="two"))
    assert pickle.loads(pickle.dumps(refused.value)).why == "conflict"


def test_a_token_for_this_machine_goes_to_no_proxy(server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server.client(patience=10) as client:
        assert client.me().name == "the annotator"

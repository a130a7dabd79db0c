"""The label view in a real browser, before a real queue with real clips."""

import asyncio
import random
import statistics
import time
from pathlib import Path

import httpx
import pytest
from app_server import AppServer

pytest.importorskip("playwright", reason="Playwright is not installed")

from page_support import MIRRORED, SENTENCE, ask, clips, votes

from rayrlhf.preferences.store import Database, Question, Reports, Run, digest_of
from rayrlhf.preferences.wire import Doing
from rayrlhf.serving import page
from rayrlhf.serving.queue import build_app

pytestmark = pytest.mark.ui
PAGE = Path(page.__file__).parent / "page"
KEYS = {"1": "left", "ArrowLeft": "left", "2": "right", "ArrowRight": "right"}
KEYS |= {"0": "equal", "ArrowUp": "equal", "s": "skip", "ArrowDown": "skip"}


@pytest.fixture
def trainer(server):
    with server.client("trainer") as client:
        yield client


def test_what_is_pressed_is_what_is_stored(visit, trainer) -> None:
    """Of the clips as they were seen, whichever side they were drawn to."""
    asked = ask(trainer, 8)
    names = {pair: name for name, pair in asked.items()}
    person, expected, turned = visit(), {}, set()
    for key, choice in KEYS.items():
        left, right = person.pair()
        flipped = (left, right) not in names
        name = names[(right, left) if flipped else (left, right)]
        expected[name] = [MIRRORED[choice] if flipped else choice]
        turned.add(flipped)
        person.press(key)
    person.saved()
    assert votes(trainer) == expected
    assert turned == {False, True}, "both ways round were seen"
    assert all(0 < vote.seconds < 60 for item in trainer.answered("run") for vote in item.votes)


def test_a_server_that_goes_and_comes_loses_and_doubles_nothing(visit, trainer, server) -> None:
    asked = ask(trainer, 20)
    person = visit()
    for i in range(20):
        if i == 7:
            server.stop()
        person.press("12"[i % 2])
        if i == 9:  # those in hand are answered, though nobody hears it
            person.said("waiting to be sent · offline")
            server.start()
    person.saved()
    assert {name: len(said) for name, said in votes(trainer).items()} == dict.fromkeys(asked, 1)
    assert [one.answers for one in trainer.people("run")] == [20]
    person.said("You have answered everything there is.")
    times, late = (person.page.evaluate(f"rayrlhf.{name}") for name in ("latencies", "late"))
    assert times and len(times) + len(late) < 20  # how many were there already says something of the machine
    print(f"\nnext pair after {statistics.median(times):.0f} ms (median), {max(times):.0f} ms (most), of {len(times)}")


@pytest.mark.parametrize("damaged", ["{", "null", "3", '{"left": 3, "kind": "answer"}'])
def test_what_is_damaged_in_the_browsers_storage_stops_nothing(visit, trainer, damaged: str) -> None:
    asked = ask(trainer, 2)
    person = visit()
    person.ready()
    for name in ("rayrlhf/keys", f"rayrlhf/outbox/{trainer.me().queue}/the annotator/one"):
        person.page.evaluate("([name, text]) => localStorage.setItem(name, text)", [name, damaged])
    person.page.reload()
    person.press("1")
    person.press("2")
    person.said("You have answered everything there is.")
    person.saved()
    assert {name: len(said) for name, said in votes(trainer).items()} == dict.fromkeys(asked, 1)


def test_shift_and_an_arrow_extend_a_selection_and_answer_nothing(visit, trainer) -> None:
    ask(trainer, 1)
    person = visit()
    person.ready()
    for key in ("Shift+ArrowLeft", "Shift+ArrowRight", "Shift+Space"):
        person.page.keyboard.press(key)
    person.page.wait_for_timeout(300)
    assert votes(trainer) == {}
    person.press("ArrowLeft")
    person.said("You have answered everything there is.")


def test_a_server_that_is_away_is_said_to_be(visit, trainer, server) -> None:
    ask(trainer, 2)
    person = visit()
    person.press("1")
    person.ready()
    server.stop()
    person.press("1")
    person.said("The server cannot be reached just now.")
    server.start()
    person.said("You have answered everything there is.")
    person.saved()
    assert [len(said) for said in votes(trainer).values()] == [1, 1]


def test_serve_s_404_is_no_refusal(visit, trainer, server) -> None:
    """Ray Serve says it, of every path, while it starts or ends: here of each once, before it is carried out."""
    ask(trainer, 3, settle_seconds=60)
    person, refused = visit(None), set()

    def no_route(route) -> None:
        call = route.request.method, route.request.url
        if call in refused:
            route.continue_()
        else:
            refused.add(call)
            route.fulfill(status=404, content_type="text/plain", body="Path '/v1/me' not found.")

    person.page.route("**/v1/**", no_route)
    person.open(server.tokens["annotator"])
    first = person.pair()
    person.press("1")
    person.saved()
    person.ready()
    person.page.keyboard.press("z")
    assert person.pair() == first
    person.press("0")
    person.saved()
    assert list(votes(trainer).values()) == [["equal"]]
    assert {"me", "runs", "events", "leases", "answers", "1"} <= {url.rpartition("/")[2] for _, url in refused}
    assert any(url.endswith(".mp4") for _, url in refused)


@pytest.fixture
def next_queue(server, make_server, tmp_path):
    """Another queue, for the same address and with the same accounts, which does not run yet."""
    other = make_server(database=str(tmp_path / "next.sqlite"))
    other.stop()
    for role, token in server.tokens.items():
        other.accounts.ensure(f"the {role}", role, digest_of(token))
    other.port, other.url, other.tokens = server.port, server.url, server.tokens
    return other


@pytest.mark.parametrize("stays_open", [True, False])
def test_answers_that_wait_are_not_the_next_queue_s(visit, trainer, server, next_queue, stays_open: bool) -> None:
    """Its leases and answers have the same numbers. When the first one is back it gets them."""
    ask(trainer, 3, settle_seconds=60)
    person = visit()
    person.press("1")
    person.saved()
    person.ready()
    server.stop()
    person.page.keyboard.press("z")
    person.press("0")
    person.said("2 waiting to be sent · offline")
    if not stays_open:
        person.page.goto("about:blank")
    with person.page.expect_navigation():  # it notices by itself where it stays open
        next_queue.start()
        ask(trainer, 4, settle_seconds=60)
        with next_queue.client() as same_person:
            leases = [question.lease for question in same_person.lease("run", 3)]
            assert (min(leases), same_person.answer(leases[1], "skip").answer) == (1, 1)
        if not stays_open:
            person.page.goto(server.url)
    person.press("0")
    person.saved()
    assert sorted(votes(trainer).values()) == [["equal"], ["skip"]]
    next_queue.stop()
    server.start()
    person.page.reload()
    person.ready()
    person.saved()
    assert votes(trainer) == {"run/0/000": ["equal"]}


def test_answers_that_wait_outlive_the_page(visit, trainer) -> None:
    asked = ask(trainer, 6)
    person = visit()
    person.page.route("**/v1/answers", lambda route: route.abort())
    seen = []
    for key in ("1", "2"):
        seen.append(set(person.pair()))
        person.press(key)
    person.said("2 waiting to be sent · offline")
    person.page.reload()
    assert set(person.pair()) not in seen, "what was answered is not asked again"
    assert votes(trainer) == {}
    person.page.unroute("**/v1/answers")
    person.saved()
    assert [set(asked[name]) for name in sorted(votes(trainer))] == seen


def test_an_answer_whose_confirmation_was_lost_is_stored_once(visit, trainer) -> None:
    ask(trainer, 2)
    person = visit()
    lost = []

    def lose(route) -> None:
        if not lost:
            lost.append(route.fetch())  # the server has it, and the page does not know
            route.abort()
        else:
            route.continue_()

    person.page.route("**/v1/answers", lose)
    person.press("1")
    person.saved()
    assert (lost[0].status, [len(said) for said in votes(trainer).values()]) == (200, [1])


@pytest.mark.parametrize("by_key", [True, False])
def test_an_answer_is_taken_back(visit, trainer, by_key: bool) -> None:
    ask(trainer, 3)
    person = visit()
    first = person.pair()
    person.press("0")
    person.saved()
    person.ready()
    if by_key:
        person.page.keyboard.press("z")
    else:
        person.page.click("#toast button")
    assert person.pair() == first
    person.press("s")
    person.saved()
    assert list(votes(trainer).values()) == [["skip"]]


def test_an_answer_that_was_not_sent_is_taken_back_too(visit, trainer) -> None:
    ask(trainer, 3)
    person = visit()
    person.page.route("**/v1/answers", lambda route: route.abort())
    first = person.pair()
    person.press("0")
    second = person.pair()
    person.press("0")
    person.ready()
    person.page.keyboard.press("z")
    assert person.pair() == second
    person.page.keyboard.press("z")
    assert person.pair() == first
    person.press("s")
    person.page.unroute("**/v1/answers")
    person.saved()
    assert list(votes(trainer).values()) == [["skip"]]
    assert person.pair() == second


def test_an_answer_that_another_tab_sent_is_taken_back_too(visit, trainer) -> None:
    ask(trainer, 2)
    person = visit()
    person.page.route("**/v1/answers", lambda route: route.abort())
    first = person.pair()
    person.press("0")
    person.ready()
    other = person.page.context.new_page()
    other.goto(person.page.url)
    person.until("document.querySelector('#status').textContent === 'All saved'")
    assert list(votes(trainer).values()) == [["equal"]]
    person.page.unroute("**/v1/answers")
    other.close()
    person.page.keyboard.press("z")
    assert person.pair() == first
    person.saved()
    person.press("s")
    person.saved()
    assert list(votes(trainer).values()) == [["skip"]]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_on_the_way_the_last_word_is_stored(visit, trainer, seed: int) -> None:
    """Calls fail before they arrive or after, or are slow, while somebody answers and takes back."""
    asked = ask(trainer, 12, settle_seconds=60)
    rng, person = random.Random(seed), visit()
    said: dict[frozenset[str], str] = {}

    def disturb(route) -> None:
        fate = rng.random() if len(said) < len(asked) else 1.0  # in the end the network is well again
        if fate < 0.2:
            route.abort()
        elif fate < 0.4:
            route.fetch()
            route.abort()
        elif fate < 0.5:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")
        else:
            route.continue_()

    person.page.route("**/v1/answers*", disturb)
    person.page.route("**/v1/answers/*", disturb)
    person.page.route("**/leases", disturb)
    while len(said) < len(asked):
        pair = frozenset(person.pair())
        assert pair not in said, "nothing is asked twice"
        said[pair] = rng.choice(["equal", "skip"])
        person.press({"equal": "0", "skip": "s"}[said[pair]])
        if rng.random() < 0.3:
            person.page.keyboard.press("z")
            assert frozenset(person.pair()) == pair
            del said[pair]
    person.saved()
    assert {frozenset(asked[name]): choices for name, choices in votes(trainer).items()} == {
        pair: [choice] for pair, choice in said.items()
    }


def test_the_button_of_undo_says_whether_there_is_anything(visit, trainer) -> None:
    ask(trainer, 3, settle_seconds=2)
    person = visit()
    first = person.pair()
    state = "document.querySelector('#undo-button').getAttribute('aria-disabled')"
    assert person.page.evaluate(state) == "true"
    person.page.click("#undo-button", force=True)  # does nothing
    assert person.pair() == first
    person.press("0")
    person.until(f"{state} === 'false'")
    person.page.click("#undo-button")
    assert person.page.evaluate(state) == "true"
    assert person.pair() == first
    person.press("s")
    person.saved()
    assert person.page.evaluate(state) == "false"
    person.until(f"{state} === 'true'")  # training has it
    assert list(votes(trainer).values()) == [["skip"]]


def test_the_last_question_is_taken_back_by_the_button(visit, trainer) -> None:
    ask(trainer, 1, settle_seconds=60)
    person = visit()
    first = person.pair()
    person.press("0")
    person.said("You have answered everything there is.")
    person.page.click("#undo-button")
    assert person.pair() == first
    person.press("s")
    person.saved()
    assert list(votes(trainer).values()) == [["skip"]]


def test_too_late_to_take_back(visit, trainer) -> None:
    ask(trainer, 3, settle_seconds=0.5)
    person = visit()
    person.press("0")
    person.saved()
    second = person.pair()
    time.sleep(0.6)
    person.page.keyboard.press("z")
    person.said("Too late to take that back")
    assert person.pair() == second
    assert list(votes(trainer).values()) == [["equal"]]


def test_keys_are_chosen_and_kept(visit, trainer) -> None:
    ask(trainer, 3)
    person = visit()
    person.ready()
    person.page.click("#settings-button")
    person.page.click("#change-equal")
    person.page.keyboard.press("k")
    person.page.click("#change-skip")
    person.page.keyboard.press("2")  # which was another's
    person.page.keyboard.press("Escape")
    assert person.page.locator("#choose-equal kbd").all_inner_texts() == ["K"]
    assert person.page.locator("#choose-right kbd").all_inner_texts() == ["→"]
    person.page.reload()
    person.ready()
    person.page.keyboard.press("0")  # means nothing now
    person.press("k")
    person.press("2")
    person.saved()
    assert sorted(votes(trainer).values()) == [["equal"], ["skip"]]


def test_buttons_tell_their_keys(visit, trainer) -> None:
    """Those of now: keys can be chosen, and what the button of playing does changes."""
    ask(trainer, 3)
    person = visit()
    person.ready()
    page = person.page
    wanted = {"restart": "Play from the start (R)", "back": "One frame back (,)", "forward": "One frame forward (.)"}
    for action, name in {**wanted, "play": "Pause (Space)", "undo": "Undo (Z)"}.items():
        button = page.locator(f"button[data-action={action}]")
        assert (button.get_attribute("title"), button.get_attribute("aria-label")) == (name, name)
        assert button.locator("kbd").inner_text() == name.partition("(")[2].removesuffix(")")
        assert button.locator("kbd").is_visible()
    page.keyboard.press(" ")
    page.click("#settings-button")
    for action, key in (("play", "p"), ("help", "h"), ("back", "r")):
        page.click(f"#change-{action}")
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    titles = page.locator("#controls [title]").evaluate_all("all => all.map((button) => button.title)")
    assert titles == ["Play (P)", "Play from the start", "One frame back (R)", "One frame forward (.)"]
    assert page.locator("#controls kbd:visible").all_inner_texts() == ["P", "R", "."]
    assert page.inner_text("#help-button kbd") == "H"
    page.keyboard.press("p")
    assert page.get_attribute("#play-button", "title") == "Pause (P)"


def test_keys_mean_nothing_elsewhere(visit, trainer) -> None:
    ask(trainer, 3)
    person = visit()
    person.ready()
    for chord in ("Control+1", "Alt+2", "Meta+0"):
        person.page.keyboard.press(chord)
    person.page.keyboard.press("?")
    person.page.keyboard.press("1")
    person.page.keyboard.press("Escape")
    person.page.focus("#time")
    person.page.keyboard.press("ArrowRight")  # moves the time
    person.page.focus("#guidelines")
    person.page.keyboard.press("ArrowDown")  # reads on
    person.page.wait_for_timeout(300)
    assert person.page.inner_text("#mine") == "0"
    assert person.page.evaluate("Object.keys(localStorage).filter((name) => name.includes('outbox'))") == []


def test_both_clips_are_to_be_seen_first(visit, trainer) -> None:
    ask(trainer, 2, play_once=True)
    person = visit()
    person.said("Please watch both clips to the end once.")
    person.page.keyboard.press("1")
    assert person.page.inner_text("#mine") == "0"
    assert person.page.locator("#choices [aria-disabled=true]").count() == 4
    person.press("1")  # waits until it may
    person.saved()
    [item] = trainer.answered("run")
    assert item.votes[0].seconds > 1.5 and item.votes[0].replays == 0


def test_both_clips_play_as_one(visit, trainer) -> None:
    ask(trainer, 2)
    person = visit()
    person.ready()
    page = person.page
    state = "[...document.querySelectorAll('.pair.active video')].map((v) => [v.currentTime, v.playbackRate, v.muted])"
    page.wait_for_timeout(500)
    (left, *rest), (right, *_) = page.evaluate(state)
    assert rest == [1, True] and left > 0.2 and abs(left - right) < 0.1
    page.click("[data-speed='0.5']")
    page.keyboard.press("r")
    page.keyboard.press("r")
    (left, speed, _), (right, *_) = page.evaluate(state)
    assert speed == 0.5 and left < 0.2 and abs(left - right) < 0.1
    page.keyboard.press(" ")
    person.until("[...document.querySelectorAll('video')].every((video) => video.paused)")
    before = page.evaluate(state)
    page.keyboard.press(".")
    person.until(f"{state}[0][0] > {before[0][0]} + 0.001")
    (left, *_), (right, *_) = page.evaluate(state)
    assert left == pytest.approx(right, abs=0.01)
    person.press("1")
    person.saved()
    [item] = trainer.answered("run")
    assert item.votes[0].replays == 2
    person.ready()
    assert [speed for _, speed, _ in page.evaluate(state)] == [0.5, 0.5], "the speed stays"


def test_waiting_tells_what_training_does_and_ends_by_itself(visit, trainer) -> None:
    trainer.register(Run("run", "point", SENTENCE))
    person = visit()
    person.said("You have answered everything there is.")
    person.page.evaluate("window.still = true")
    trainer.note("run", Doing(phase="exploring", env_steps=1000, total_steps=10_000, next_questions_at=4000))
    person.said("Training is at work: exploring.")
    person.said("The next questions come in about 3,000 steps")
    time.sleep(3.2)
    trainer.note("run", Doing(phase="exploring", env_steps=2000, total_steps=10_000, next_questions_at=4000))
    person.said("2,000 steps (about")
    trainer.enqueue("run", [Question("run/0/000", 0, 0, ready=False)])
    trainer.note("run", Doing(phase="drawing"))
    person.said("1 question on the way: the clips are being drawn.")
    ask(trainer, 1)
    person.press("1")
    person.saved()
    assert person.page.evaluate("window.still"), "the page was not loaded anew"


def test_without_a_stream_of_events_it_looks_by_itself(visit, trainer, server) -> None:
    trainer.register(Run("run", "point", SENTENCE))
    person = visit(None)
    person.page.route("**/events", lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}, body="{}"))
    person.open(server.tokens["annotator"])
    person.said("You have answered everything there is.")
    ask(trainer, 1)
    person.ready()


def test_a_lease_that_ran_out_is_renewed(visit, trainer) -> None:
    ask(trainer, 1, lease_seconds=1.5)
    person = visit()
    first = person.pair()
    person.page.wait_for_timeout(4000)
    assert person.pair() == first
    person.press("1")
    person.saved()
    assert len(votes(trainer)) == 1


def test_what_somebody_else_left_comes_by_itself(visit, trainer, server) -> None:
    """Nothing is new then that a stream of events could tell."""
    ask(trainer, 1, lease_seconds=3)
    with server.client("admin") as other:
        other.lease("run")
    person = visit()
    person.said("The open questions are with other people just now")
    person.ready()


AWAY = {
    "elsewhere": "Object.defineProperty(document, 'hidden', { get: () => !window.back })",
    "asleep": "((now) => { performance.now = () => now() + 301_000 })(performance.now.bind(performance))",
}
BACK = "window.back = true; document.dispatchEvent(new Event('visibilitychange'))"


@pytest.mark.parametrize("how", AWAY)
def test_a_page_with_nobody_there_takes_no_questions(visit, trainer, server, how: str) -> None:
    trainer.register(Run("run", "point", SENTENCE))
    person, reports = visit(), Reports(Database(server.settings.database))
    person.said("You have answered everything there is.")
    person.page.evaluate(f"{{ {AWAY[how]} }}")
    ask(trainer, 2)
    person.page.wait_for_timeout(7000)
    assert reports.leased("run") == 0
    person.said("There are questions, but you seem to be away")
    person.page.evaluate(f"{{ {BACK} }}")
    person.ready()
    assert reports.leased("run") == 2


def test_a_question_that_is_gone_is_left(visit, trainer) -> None:
    """Training has gone on to questions of a newer session."""
    ask(trainer, 1, lease_seconds=1.5, keep_sessions=1)
    person = visit()
    person.ready()
    trainer.enqueue("run", [Question("newer", 1, 0, ready=False)])
    person.said("That question is not needed any more.")
    trainer.clips_made("run", "newer", *list(clips())[-2:])
    assert set(person.pair()) == set(list(clips())[-2:])


def test_clips_that_are_not_there_can_be_skipped(visit, trainer) -> None:
    trainer.register(Run("run", "point", SENTENCE))
    trainer.enqueue("run", [Question("q", 0, 0, left_clip="0" * 32 + ".mp4", right_clip="1" * 32 + ".mp4")])
    person = visit()
    person.said("The clips cannot be shown")
    assert person.page.locator("#choices [aria-disabled=false]").count() == 1
    person.page.keyboard.press("s")
    person.saved()
    assert votes(trainer) == {"q": ["skip"]}


def slowly(app, stalls: bool):
    """`app` over a slow connection: a clip comes in ten pieces; if it `stalls`, the first time not even the second."""
    begun = set()

    async def run(scope, receive, send) -> None:
        async def send_slowly(message) -> None:
            body = message.get("body", b"")
            if "/v1/clips/" not in scope["path"] or not body:
                await send(message)
                return
            first = scope["path"] not in begun
            begun.add(scope["path"])
            size = -(-len(body) // 10)
            for start in range(0, len(body), size):
                await send({**message, "body": body[start : start + size], "more_body": True})
                await asyncio.sleep(60 if stalls and first else 0.3)
            await send({**message, "body": b""})

        await app(scope, receive, send_slowly)

    return run


@pytest.mark.parametrize("stalls", [False, True])
def test_clips_come_over_a_slow_connection(visit, trainer, server, stalls: bool) -> None:
    """As long as something comes they take what they take; where nothing does they are asked for again."""
    ask(trainer, 1)
    server.stop()
    slow = AppServer(slowly(build_app(server.settings), stalls), server.port)
    person = visit(None)
    calls = (PAGE / "api.js").read_text()
    shorter = calls.replace("TIMEOUT = 20_000", "TIMEOUT = 1_500")
    assert shorter != calls
    person.page.route("**/page/api.js", lambda route: route.fulfill(body=shorter, content_type="text/javascript"))
    person.open(server.tokens["annotator"])
    person.ready()
    fetched = [url for url in person.requests if url.endswith(".mp4")]
    assert len(fetched) == (4 if stalls else 2)
    person.press("1")
    person.saved()
    slow.stop()


def test_another_run(visit, trainer) -> None:
    ask(trainer, 2, run="first")
    ask(trainer, 3, run="second")
    person = visit(more="&run=first")
    person.ready()
    assert "token" not in person.page.url
    assert person.page.inner_text("#open") == "2"
    trainer.register(Run("point", "point", SENTENCE))
    person.page.reload()
    person.until("document.querySelectorAll('#run option').length === 3")
    listed = person.page.locator("#run option").all_inner_texts()
    assert set(listed) == {"first (2 open) · point", "second (3 open) · point", "point (0 open)"}
    person.page.select_option("#run", "second")
    person.until("document.querySelector('#open').textContent === '3'")
    person.press("1")
    person.saved()
    assert (len(votes(trainer, "first")), len(votes(trainer, "second"))) == (0, 1)


def test_a_token_that_ended_keeps_what_waits(visit, trainer, server) -> None:
    ask(trainer, 3)
    person = visit()
    person.ready()
    server.tokens["annotator"] = server.accounts.renew("the annotator")
    person.press("1")
    person.said("Your token is not valid any more.")
    assert votes(trainer) == {}
    person.page.fill("#token", "wrong")
    person.page.keyboard.press("Enter")
    person.said("Your token is not valid any more.")
    person.page.fill("#token", server.tokens["annotator"])
    person.page.keyboard.press("Enter")
    person.ready()
    person.saved()
    assert len(votes(trainer)) == 1


def test_without_a_token_it_asks_for_one(visit, trainer, server) -> None:
    person = visit(None)
    person.page.goto(server.url)
    person.said("paste your token here")
    assert not [url for url in person.requests if "/v1/" in url]
    ask(trainer, 1)
    person.open(server.tokens["annotator"])  # in the same tab
    person.ready()
    person.page.goto(server.url)  # from now on without the link
    person.ready()


def test_what_people_write_is_only_text(visit, trainer) -> None:
    nasty = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    trainer.register(Run("a <b>run", "point", nasty, nasty))
    person = visit()
    person.until("document.querySelector('#sentence').textContent.includes('<script>')")
    assert person.page.inner_text("#guidelines") == nasty
    assert person.page.locator("main img, main script, #run b").count() == 0


def test_the_sentence_is_the_questions_own_where_it_has_one(visit, trainer) -> None:
    ask(trainer, 1)
    [left, right] = list(clips())[:2]
    nasty = "<b>Keep</b> the point away."
    own = Question(
        "own", 1, 0, left_clip=left, right_clip=right, instruction=nasty
    )  # of a newer session: it comes first
    trainer.enqueue("run", [own])
    person = visit()
    person.ready()
    assert person.page.inner_text("#sentence") == nasty
    person.page.keyboard.press("1")
    person.until(f"document.querySelector('#sentence').textContent === {SENTENCE!r}")
    person.ready()


def test_everything_is_reached_by_the_tabulator_alone(visit, trainer) -> None:
    ask(trainer, 3)
    person = visit()
    person.ready()
    reached = set()
    for _ in range(30):
        person.page.keyboard.press("Tab")
        reached.add(person.page.evaluate("document.activeElement.outerHTML.slice(0, 90)"))
    wanted = person.page.evaluate("""() => [...document.querySelectorAll("button, select, input, a")]
      .filter((each) => each.checkVisibility() && !each.disabled).map((each) => each.outerHTML.slice(0, 90))""")
    assert len(wanted) > 12 and set(wanted) <= reached
    person.page.focus("#choose-equal")
    person.press("Enter")
    person.press("Enter")  # the focus has stayed
    person.saved()
    assert list(votes(trainer).values()) == [["equal"], ["equal"]]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (820, 1180), (1180, 820), (768, 1024)])
def test_it_fits(visit, trainer, width: int, height: int) -> None:
    ask(trainer, 3)
    trainer.note("run", Doing(phase="learning", labels=3, budget=10))
    person = visit(viewport={"width": width, "height": height})
    person.press("1")
    person.ready()
    assert person.page.locator("#controls kbd:visible").count() == 4
    inside = """() => ["html", "main", "#label", ".work", "#question"].filter((name) => {
      const { scrollHeight, clientHeight, scrollWidth, clientWidth } = document.querySelector(name);
      return scrollHeight > clientHeight || scrollWidth > clientWidth;
    })"""
    assert person.page.evaluate(inside) == [], "nothing scrolls"
    left, right = (video.bounding_box() for video in person.page.locator(".pair.active video").all())
    assert (left["y"], left["width"], left["height"]) == (right["y"], right["width"], right["height"])
    assert left["x"] + left["width"] <= right["x"] and left["width"] > 300
    last = person.page.locator("#choose-right").bounding_box()
    assert last["y"] + last["height"] <= height and last["x"] + last["width"] <= width


def test_the_page_s_own_policy_holds(visit, server) -> None:
    """Nothing inline runs, and nothing goes elsewhere."""
    person = visit(None)
    person.page.goto(server.url)
    blocked = person.page.evaluate("""async () => {
      const script = Object.assign(document.createElement("script"), { textContent: "window.ran = true" });
      document.body.append(script);
      const away = await fetch("//elsewhere.invalid/").then(() => true, () => false);
      return [window.ran ?? false, away];
    }""")
    assert blocked == [False, False]
    assert person.faults, "the browser says so"
    person.faults.clear()
    person.requests.clear()
    assert httpx.get(server.url).headers["content-security-policy"].startswith("default-src 'none'")

"""Leases, answers and labels, on SQLite and on PostgreSQL."""

import pytest

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.store import Database, PreferenceStore, Question, RefusedError, Reports, Run


def fill(store: PreferenceStore, count: int = 3, session: int = 0, run: str = "run", **options: object) -> None:
    chosen = QueueOptions(**{"settle_seconds": 0.0, **options})
    store.register(Run(run, "drawer-open", "open the drawer", options=chosen))
    store.enqueue(run, [Question(f"{run}/{session}/{i}", session, i) for i in range(count)])


def later(database: Database, seconds: float) -> None:
    """Lets time pass."""
    database.clock.resume_at(database.clock.now() + seconds)


def asked(store: PreferenceStore, annotator: str, count: int = 100, run: str = "run") -> list[str]:
    return [lease.query_id for lease in store.lease(run, annotator, count)]


def say(store: PreferenceStore, annotator: str, choice: Choice, run: str = "run") -> int:
    """Answers the next question so, in the query's own order; the answer's id."""
    [lease] = store.lease(run, annotator)
    first = store.answer(annotator, lease.id, choice, key=f"{annotator}/{lease.id}/{lease.expires_at}")
    return first.answer_id


def choices(store: PreferenceStore) -> dict[str, tuple[str, float | None]]:
    return {decision.query_id: (decision.status, decision.target) for decision in store.decisions("run")}


def test_each_question_goes_to_one_person_at_a_time(store: PreferenceStore) -> None:
    fill(store)
    assert asked(store, "anna", 2) == ["run/0/0", "run/0/1"]
    assert asked(store, "ben") == ["run/0/2"]
    assert asked(store, "cleo") == []
    assert asked(store, "anna", 1) == ["run/0/0"], "a page that is loaded again shows the same"
    assert asked(store, "anna") == ["run/0/0", "run/0/1"]


def test_a_lease_ends_and_others_are_asked(store: PreferenceStore, database: Database) -> None:
    fill(store, 1, lease_seconds=60.0)
    [lease] = store.lease("run", "anna")
    later(database, 59)
    assert asked(store, "ben") == []
    later(database, 2)
    assert asked(store, "ben") == ["run/0/0"]
    assert asked(store, "anna") == []
    late = store.answer("anna", lease.id, "equal", key="late")
    assert late.counted
    assert choices(store) == {"run/0/0": ("label", 0.5)}
    assert asked(store, "ben") == [], "what is decided is not asked any more"


def test_an_answer_to_a_decided_question_is_kept_and_changes_nothing(
    store: PreferenceStore, database: Database
) -> None:
    fill(store, 1, lease_seconds=60.0)
    [lease] = store.lease("run", "anna")
    later(database, 61)
    say(store, "ben", "equal")
    assert not store.answer("anna", lease.id, "left", key="late").counted
    assert choices(store) == {"run/0/0": ("label", 0.5)}


def test_the_newest_session_is_asked_first_and_old_ones_are_dropped(store: PreferenceStore) -> None:
    for session in range(4):
        fill(store, 2, session, keep_sessions=2)
    assert asked(store, "anna") == ["run/3/0", "run/3/1", "run/2/0", "run/2/1"]


def test_only_what_is_named_is_asked(store: PreferenceStore, database: Database) -> None:
    """Nobody sees anything else: not for its label, nor as a test, nor once more."""
    fill(store, 8, gold_every=10, repeat_every=7, lease_seconds=60.0)
    store.enqueue("run", [Question("known", 0, 0, gold="left")])
    for _ in range(6):
        say(store, "anna", "equal")
    store.ask_only("run", [f"run/0/{i}" for i in range(1, 8)])
    assert asked(store, "anna", 1) == ["run/0/6"], "not the first one once more"
    say(store, "anna", "equal")
    assert asked(store, "anna", 5) == ["run/0/7"]
    store.ask_only("run", ["known"])
    assert asked(store, "anna", 5) == [], "nor what somebody has in hand"
    assert choices(store).keys() == {f"run/0/{i}" for i in range(7)}, "what was said stays"
    store.ask_only("run", ["run/0/7", "run/0/0"])
    assert asked(store, "anna", 5) == ["run/0/7"]
    later(database, 61)
    assert asked(store, "ben", 5) == ["run/0/7"]


def test_an_answer_to_a_question_that_was_dropped_meanwhile_counts(store: PreferenceStore) -> None:
    fill(store, 1, 0, keep_sessions=1)
    [lease] = store.lease("run", "anna")
    fill(store, 1, 1, keep_sessions=1)
    assert store.answer("anna", lease.id, "equal", key="a").counted
    assert choices(store) == {"run/0/0": ("label", 0.5)}


def test_sides_are_drawn_for_each_annotator_and_turned_back(store: PreferenceStore) -> None:
    """Everybody prefers the clip `a`, wherever it is shown."""
    count, people = 40, ("anna", "ben")
    store.register(Run("run", "t", "s", options=QueueOptions(settle_seconds=0, overlap=2, min_answers=2)))
    store.enqueue("run", [Question(f"q{i}", 0, i, left_clip=f"a{i}", right_clip=f"b{i}") for i in range(count)])
    on_the_left = {}
    for annotator in people:
        leases = store.lease("run", annotator, count)
        for i, lease in enumerate(leases):
            assert {lease.left_clip, lease.right_clip} == {f"a{i}", f"b{i}"}
            first = lease.left_clip == f"a{i}"
            store.answer(annotator, lease.id, "left" if first else "right", key=f"{annotator}{i}")
        on_the_left[annotator] = [lease.left_clip == f"a{i}" for i, lease in enumerate(leases)]
    assert all(0 < sum(lefts) < count for lefts in on_the_left.values())
    assert on_the_left["anna"] != on_the_left["ben"]
    assert set(choices(store).values()) == {("label", 0.0)}


def test_a_call_that_is_repeated_answers_once(store: PreferenceStore) -> None:
    fill(store, 2)
    first, second = store.lease("run", "anna", 2)
    receipt = store.answer("anna", first.id, "left", key="key", seconds=2.5, replays=1)
    assert store.answer("anna", first.id, "left", key="key", seconds=9.0) == receipt
    for lease, choice, key in [(first, "right", "key"), (second, "left", "key"), (first, "left", "other")]:
        with pytest.raises(RefusedError) as refused:
            store.answer("anna", lease.id, choice, key=key)
        assert refused.value.why == "conflict"
    [decision] = store.decisions("run")
    [vote] = decision.votes
    assert (vote.annotator, vote.seconds, vote.replays) == ("anna", 2.5, 1)


def test_nobody_answers_for_another(store: PreferenceStore) -> None:
    fill(store)
    [lease] = store.lease("run", "anna")
    answer = store.answer("anna", lease.id, "left", key="a").answer_id
    for call in (
        lambda: store.answer("ben", lease.id, "left", key="b"),
        lambda: store.answer("anna", 999, "left", key="b"),
        lambda: store.undo("ben", answer),
        lambda: store.undo("anna", 999),
        lambda: store.lease("other run", "anna"),
        lambda: store.enqueue("other run", []),
    ):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.why == "unknown"


def test_what_is_taken_back_is_asked_again(store: PreferenceStore, database: Database) -> None:
    fill(store, 2, settle_seconds=10.0)
    answer = say(store, "anna", "equal")
    lease = store.undo("anna", answer)
    assert lease == store.undo("anna", answer), "a second call does nothing more"
    assert choices(store) == {}
    assert asked(store, "anna", 1) == ["run/0/0"]
    again = store.answer("anna", lease.id, "skip", key="again")
    assert again.counted
    for call in (
        lambda: store.undo("anna", answer),
        lambda: store.answer("anna", lease.id, "equal", key=f"anna/{lease.id}"),
        lambda: store.answer("anna", lease.id, "skip", key="a third"),
    ):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.why == "conflict"
    later(database, 11)
    assert choices(store) == {"run/0/0": ("skip", None)}


def test_a_key_is_not_good_for_an_answer_that_was_taken_back(store: PreferenceStore) -> None:
    """Or that answer would be acknowledged, and be nowhere."""
    fill(store, 1, settle_seconds=10.0)
    [lease] = store.lease("run", "anna")
    store.undo("anna", store.answer("anna", lease.id, "left", key="key").answer_id)
    with pytest.raises(RefusedError, match="key"):
        store.answer("anna", lease.id, "left", key="key")


def test_a_vote_that_was_too_late_counts_when_another_is_taken_back(store: PreferenceStore, database: Database) -> None:
    fill(store, 1, lease_seconds=60.0, settle_seconds=10.0)
    [annas] = store.lease("run", "anna")
    later(database, 61)
    [bens] = store.lease("run", "ben")
    first = store.answer("anna", annas.id, "equal", key="a")
    assert not store.answer("ben", bens.id, "skip", key="b").counted
    store.undo("anna", first.answer_id)
    later(database, 61)
    assert choices(store) == {"run/0/0": ("skip", None)}
    assert asked(store, "cleo") == []


@pytest.mark.parametrize("gold", [None, "left"])
def test_taking_back_does_not_tell_what_a_question_is_for(
    store: PreferenceStore, database: Database, gold: Choice | None
) -> None:
    fill(store, 0, settle_seconds=10.0, gold_every=1)
    store.enqueue("run", [Question("q", 0, 0, gold=gold)])
    answer = say(store, "anna", "equal")
    later(database, 11)
    with pytest.raises(RefusedError) as refused:
        store.undo("anna", answer)
    assert refused.value.why == "late"


def test_a_question_that_is_asked_again_can_be_taken_back_although_its_first_answer_is_learnt_from(
    store: PreferenceStore, database: Database
) -> None:
    fill(store, 10, settle_seconds=10.0, repeat_every=7)
    for _ in range(6):
        say(store, "anna", "equal")
    later(database, 11)
    assert len(store.decisions("run")) == 6
    [again] = store.lease("run", "anna")
    assert again.query_id == "run/0/0"
    answer = store.answer("anna", again.id, "left", key="again").answer_id
    assert store.undo("anna", answer).query_id == "run/0/0"
    store.answer("anna", again.id, "equal", key="better")
    [anna] = Reports(database).people("run")
    assert anna.same == (1, 1)


@pytest.mark.parametrize("purpose", ["gold", "repeat"])
def test_a_test_that_was_left_comes_again(store: PreferenceStore, database: Database, purpose: str) -> None:
    """Or whoever closes the page is not tested, and whoever looks for long is told which one it was."""
    fill(store, 10, lease_seconds=60.0, settle_seconds=0, **{f"{purpose}_every": 7})
    if purpose == "gold":
        store.enqueue("run", [Question("known", 0, 0, gold="equal")])
    for _ in range(6):
        say(store, "anna", "equal")
    [test] = store.lease("run", "anna")
    assert test.query_id == ("known" if purpose == "gold" else "run/0/0")
    later(database, 61)
    [again] = store.lease("run", "anna")
    assert (again.id, again.query_id) == (test.id, test.query_id)
    assert again.expires_at > test.expires_at
    store.answer("anna", again.id, "equal", key="said")
    assert asked(store, "anna", 1) == ["run/0/6"]


def test_a_lease_in_its_last_moment_is_not_made_longer(store: PreferenceStore, database: Database) -> None:
    """Another could sit down in it."""
    fill(store, 1, lease_seconds=60.0)
    store.lease("run", "anna")
    later(database, 59.5)
    assert asked(store, "anna") == []
    later(database, 1)
    assert asked(store, "ben") == ["run/0/0"]


def test_what_training_has_learnt_from_cannot_be_taken_back(store: PreferenceStore, database: Database) -> None:
    store.register(Run("run", "t", "s", options=QueueOptions(settle_seconds=10)))
    store.enqueue("run", [Question("a", 0, 0)])
    answer = say(store, "anna", "equal")
    assert store.decisions("run") == [], "there is some time to take it back"
    later(database, 11)
    assert len(store.decisions("run")) == 1
    with pytest.raises(RefusedError, match="too late"):
        store.undo("anna", answer)


def test_verdicts_are_handed_over_until_they_are_received(store: PreferenceStore) -> None:
    fill(store, 2)
    say(store, "anna", "equal")
    first = store.decisions("run")
    assert store.decisions("run") == first
    assert store.decisions("run", received=["run/0/0", "run/0/1", "no such"]) == []
    say(store, "anna", "skip")
    assert choices(store) == {"run/0/1": ("skip", None)}
    fill(store, 2)
    assert [decision.query_id for decision in store.decisions("run")] == ["run/0/0", "run/0/1"], "asked for anew"


def test_people_who_disagree_send_for_another(store: PreferenceStore) -> None:
    fill(store, 1, overlap=2, min_answers=2, max_answers=3, agreement=0.6)
    for annotator, choice in (("anna", "equal"), ("ben", "skip")):
        say(store, annotator, choice)  # type: ignore[arg-type]
    assert choices(store) == {}
    assert asked(store, "anna") == []
    undone = say(store, "cleo", "skip")
    assert choices(store) == {"run/0/0": ("skip", None)}
    with pytest.raises(RefusedError):
        store.undo("cleo", undone)


def test_a_question_is_asked_once_it_can_be_shown(store: PreferenceStore) -> None:
    fill(store, 0)
    store.enqueue("run", [Question("a", 0, 0, ready=False), Question("b", 0, 1, ready=False)])
    assert asked(store, "anna") == []
    store.clips_made("run", "b", "left.mp4", "right.mp4")
    store.clips_made("run", "b", "other.mp4", "right.mp4")  # they stay
    store.register(Run("another", "point", "go there"))
    for run, query in (("run", "none"), ("another", "a")):
        with pytest.raises(RefusedError):
            store.clips_made(run, query, "left.mp4", "right.mp4")
    [lease] = store.lease("run", "anna", 2)
    assert {lease.left_clip, lease.right_clip} == {"left.mp4", "right.mp4"}


def test_a_question_that_cannot_be_shown_is_decided_without_anybody(store: PreferenceStore) -> None:
    fill(store, 1, settle_seconds=0.0)
    store.enqueue("run", [Question("a", 0, 1, ready=False), Question("b", 0, 2, ready=False)])
    store.register(Run("another", "point", "go there"))
    store.withdraw("another", "b")
    for question in ("a", "run/0/0", "none"):
        store.withdraw("run", question)
        store.withdraw("run", question)
    [decision] = store.decisions("run")
    assert (decision.query_id, decision.status, decision.votes) == ("a", "skip", ())
    store.clips_made("run", "a", "left.mp4", "right.mp4")
    assert asked(store, "anna") == ["run/0/0"], "what is decided stays so"


def test_known_and_repeated_questions_test_people_and_make_no_label(store: PreferenceStore) -> None:
    fill(store, 20, gold_every=5, repeat_every=7)
    store.enqueue("run", [Question(f"gold{i}", 0, i, gold="left") for i in range(2)])
    seen = []
    for number in range(22):
        [lease] = store.lease("run", "anna")
        seen.append(lease.query_id)
        counted = store.answer("anna", lease.id, "equal", key=str(number)).counted
        assert counted == (lease.query_id not in ("gold0", "gold1", *seen[:-1]))
    assert [i for i, query in enumerate(seen, 1) if query.startswith("gold")] == [5, 10]
    repeats = [(i, query) for i, query in enumerate(seen, 1) if query in seen[: i - 1]]
    assert [i for i, _ in repeats] == [7, 14, 21]
    assert len({query for _, query in repeats}) == 3
    assert not any(decision.query_id.startswith("gold") for decision in store.decisions("run"))
    assert len(store.decisions("run")) == 22 - 2 - 3


def test_runs_do_not_mix(store: PreferenceStore) -> None:
    fill(store, 1, run="a")
    fill(store, 1, run="b")
    say(store, "anna", "left", run="a")
    assert asked(store, "anna", run="b") == ["b/0/0"]
    assert store.decisions("b") == []
    with pytest.raises(RefusedError, match="another run's"):
        store.enqueue("b", [Question("a/0/0", 0, 0)])

"""Progress, people, agreement, the list of what was answered; accounts."""

import pytest
from sqlalchemy import select

from rayrlhf.config import QueueOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.agreement import agreement
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.store import (
    Accounts,
    Annotator,
    Database,
    Person,
    PreferenceStore,
    Progress,
    Question,
    RefusedError,
    Reports,
    Run,
)
from rayrlhf.preferences.store.tables import annotators

OPTIONS = QueueOptions(overlap=2, min_answers=2, max_answers=3, agreement=0.6, settle_seconds=0, repeat_every=7)
SAID: dict[str, dict[str, Choice]] = {
    "q0": {"anna": "equal", "ben": "equal"},
    "q1": {"anna": "equal", "ben": "skip", "cleo": "equal"},
    "q2": {"anna": "skip", "ben": "skip"},
    "q3": {"anna": "equal", "ben": "skip"},
    "q4": {"anna": "equal"},
    "q5": {"anna": "equal"},
}


@pytest.fixture
def reports(database: Database, store: PreferenceStore) -> Reports:
    """Two people, and a third for what they disagree about; `equal` and `skip` know no sides."""
    store.register(Run("run", "t", "s", options=OPTIONS))
    store.enqueue("run", [Question(f"q{i}", 0, i) for i in range(6)])
    store.enqueue("run", [Question("late", 0, 9, ready=False), Question("gold", 0, 0, gold="equal")])
    answer(store, "anna", 6)
    answer(store, "ben", 4)
    answer(store, "cleo", 1)
    return Reports(database)


def answer(store: PreferenceStore, annotator: str, count: int) -> None:
    for _ in range(count):
        [lease] = store.lease("run", annotator)
        query = lease.query_id if annotator in SAID[lease.query_id] else "q1"
        assert query == lease.query_id
        seconds = {"anna": 2.0, "ben": 4.0, "cleo": 1.0}[annotator]
        store.answer(annotator, lease.id, SAID[query][annotator], key=f"{annotator}/{query}", seconds=seconds)


def test_progress(reports: Reports) -> None:
    wanted = Progress(open=4, unready=1, label=2, skip=1, answers=11)
    assert reports.progress("run") == wanted


def test_news_say_what_the_list_of_runs_says(reports: Reports, store: PreferenceStore) -> None:
    store.register(Run("other", "t", "s"))
    store.note("run", '{"phase": "learning"}')
    for name in ("run", "other"):
        news = reports.news(name)
        for annotator in ("anna", "ben", "nobody"):
            [info] = [info for info in reports.runs(annotator) if info.name == name]
            told = (news.open, sum(news.answers.values()), news.answers.get(annotator, 0), news.doing)
            assert told == (info.open, info.answers, info.mine, info.doing)
    assert reports.news("run").answers == {"anna": 6, "ben": 4, "cleo": 1}
    with pytest.raises(RefusedError):
        reports.news("none")


def test_people(reports: Reports, store: PreferenceStore) -> None:
    [lease] = store.lease("run", "anna")
    assert lease.query_id == "q0", "the seventh question is one that she answered before"
    store.answer("anna", lease.id, "skip", key="again")
    anna, ben, cleo = reports.people("run")
    assert anna == Person("anna", 7, 2, 2.0, same=(0, 1), with_label=(2, 2))
    assert ben == Person("ben", 4, 3, 4.0, with_label=(1, 2))
    assert cleo == Person("cleo", 1, 0, 1.0, with_label=(1, 1))


def test_agreement_is_of_what_several_said(reports: Reports, store: PreferenceStore) -> None:
    assert reports.agreement("run") is None, "all that was not skipped is equal"
    store.register(Run("other", "t", "s", options=OPTIONS))
    store.enqueue("other", [Question(f"o{i}", 0, i) for i in range(8)])
    for annotator in ("anna", "ben"):
        for number in range(5):
            [lease] = store.lease("other", annotator)
            flipped = store.answer(annotator, lease.id, "left", key=f"o/{annotator}/{number}")
            assert flipped.counted
    votes = [{vote.annotator: vote.choice for vote in item.votes} for item in reports.browse("other")]
    assert len(votes) == 5 and {choice for said in votes for choice in said.values()} == {"left", "right"}
    assert reports.agreement("other") == agreement(votes)


def test_known_answers_measure_people(database: Database, store: PreferenceStore) -> None:
    store.register(Run("run", "t", "s", options=QueueOptions(gold_every=1)))
    store.enqueue("run", [Question("g0", 0, 0, gold="equal"), Question("g1", 0, 1, gold="skip")])
    for key in ("a", "b"):
        [lease] = store.lease("run", "anna")
        store.answer("anna", lease.id, "equal", key=key)
    [anna] = Reports(database).people("run")
    assert anna.gold == (1, 2)
    tests = Reports(database).browse("run", gold=True)
    assert {(item.query_id, item.choice, item.gold) for item in tests} == {("g0", "equal", True), ("g1", "skip", True)}
    assert [[(vote.annotator, vote.choice) for vote in item.votes] for item in tests] == [[("anna", "equal")]] * 2
    assert Reports(database).browse("run") == []
    assert Reports(database).browse("run", gold=True, annotator="ben") == []


def test_browsing_page_by_page(reports: Reports) -> None:
    everything = reports.browse("run")
    assert {item.query_id for item in everything} == {"q0", "q1", "q2", "q3", "q4", "q5"}
    assert everything == sorted(everything, key=lambda item: item.place, reverse=True)
    assert {vote.annotator for item in everything if item.query_id == "q1" for vote in item.votes} == {
        "anna",
        "ben",
        "cleo",
    }
    pages, before = [], None
    while page := reports.browse("run", before=before, limit=2):
        pages.append(page)
        before = page[-1].place
    assert [item for page in pages for item in page] == everything


def test_all_by_id_while_people_answer(reports: Reports, store: PreferenceStore) -> None:
    first = reports.browse("run", after_id="", limit=3)
    [lease] = store.lease("run", "dan")
    store.answer("dan", lease.id, "equal", key="dan")
    rest = reports.browse("run", after_id=first[-1].query_id)
    assert [item.query_id for item in first + rest] == [f"q{i}" for i in range(6)]


def test_browsing_what_is_wanted(reports: Reports) -> None:
    def found(**wanted: object) -> set[str]:
        return {item.query_id for item in reports.browse("run", **wanted)}  # type: ignore[arg-type]

    assert found(annotator="ben") == {"q0", "q1", "q2", "q3"}
    assert found(statuses=["label"]) == {"q0", "q1"}
    assert found(disagreed=True) == {"q1", "q3"}
    assert found(disagreed=True, statuses=["open"]) == {"q3"}
    assert reports.browse("none") == []


def test_browsing_the_runs_of_a_task(reports: Reports, store: PreferenceStore) -> None:
    for run, task in (("twin", "t"), ("stranger", "another")):
        store.register(Run(run, task, "s", options=OPTIONS))
        store.enqueue(run, [Question(f"{run}/0", 0, 0)])
        [lease] = store.lease(run, "dan")
        store.answer("dan", lease.id, "left", key=run)

    def runs(**wanted: object) -> set[str]:
        return {item.run for item in reports.browse("run", **wanted)}  # type: ignore[arg-type]

    assert runs() == runs(among="run") == {"run"}
    assert runs(among="task") == {"run", "twin"}
    assert runs(among="all") == {"run", "twin", "stranger"}
    assert runs(among="all", annotator="dan") == {"twin", "stranger"}
    pages, before = [], None
    while page := reports.browse("stranger", among="all", before=before, limit=3):
        pages += page
        before = page[-1].place
    assert pages == reports.browse("run", among="all")


def test_a_token_is_its_owners_until_it_ends(database: Database) -> None:
    accounts = Accounts(database)
    first = accounts.add("anna", "annotator")
    trainer = accounts.add("the trainer", "trainer")
    assert accounts.who(first) == Annotator("anna", "annotator")
    assert accounts.who(trainer) == Annotator("the trainer", "trainer")
    assert accounts.who("") is None and accounts.who(first + "x") is None
    second = accounts.renew("anna")
    assert accounts.who(first) is None and accounts.who(second) == Annotator("anna", "annotator")
    accounts.disable("anna")
    assert accounts.who(second) is None
    assert accounts.all() == [(Annotator("anna", "annotator"), False), (Annotator("the trainer", "trainer"), True)]
    with database.reading() as connection:
        stored = " ".join(map(str, connection.execute(select(annotators)).all()))
    assert second not in stored and trainer not in stored


@pytest.mark.parametrize("name", ["", " anna", "a/b", "a\nb", "x" * 101, "../x", "<b>"])
def test_names_are_plain(database: Database, name: str) -> None:
    with pytest.raises(UserError, match="no name for an account"):
        Accounts(database).add(name, "annotator")


def test_a_name_is_given_once(database: Database) -> None:
    accounts = Accounts(database)
    token = accounts.add("anna", "annotator")
    with pytest.raises(UserError, match="already"):
        accounts.add("anna", "admin")
    assert accounts.who(token) == Annotator("anna", "annotator")
    with pytest.raises(RefusedError):
        accounts.renew("ben")

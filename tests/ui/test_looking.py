"""The views of those who train: what was answered, by whom, and who may."""

import time

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from page_support import ask, votes

from rayrlhf.config import QueueOptions
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Curves, Question, Run

pytestmark = pytest.mark.ui


@pytest.fixture
def answered(server):
    """Six questions that two people answered; of three they say different things."""
    with server.client("trainer") as trainer:
        asked = ask(trainer, 6, overlap=2, min_answers=2, max_answers=2, agreement=1.0)
        rising = tuple(i / 10 for i in range(12))
        curves = [Curves(name, 1, rising, tuple(-value for value in rising)) for name in list(asked)[:4]]
        trainer.keep_curves("run", curves)
        people = {"the annotator": server.tokens["annotator"], "ben": server.accounts.add("ben", "annotator")}
        for name, token in people.items():
            with QueueClient(server.url, token) as person:
                for i in range(6):
                    [lease] = person.lease("run")
                    person.answer(lease.lease, "left" if name == "ben" and i >= 3 else "equal", seconds=2 + i)
        yield trainer


def cards(visit, count: int) -> None:
    visit.until(f"document.querySelectorAll('#cards article').length === {count}")


def test_what_was_answered_with_the_learned_reward(visit, answered) -> None:
    looking = visit("trainer")
    cards(looking, 6)
    page = looking.page
    assert page.locator("#views a:visible").all_inner_texts() == ["Browse", "People"]
    first = page.locator("article", has_text="ben").last
    first.scroll_into_view_if_needed()
    looking.until("document.querySelectorAll('#cards video').length === 12")
    assert page.locator("#cards svg").count() == 8, "of two questions no curve was kept"
    assert page.get_by_text("No learned reward was kept.").count() == 2
    drawn = page.locator("polyline").evaluate_all("all => all.map((line) => line.getAttribute('points'))")
    ends = [[float(point.split(",")[1]) for point in line.split()] for line in drawn[:2]]
    assert ends[0][0] > ends[0][-1] and ends[1][0] < ends[1][-1], "one rises, the other falls"
    assert ends[0][0] == ends[1][0], "both start from nought, at one height"
    cursor = "Number(document.querySelector('#cards svg .cursor').getAttribute('x1'))"
    looking.until(f"{cursor} > 10")
    seen = {round(page.evaluate(cursor)) for _ in range(10) if not time.sleep(0.1)}
    assert len(seen) > 3, "it moves"
    # the clip is held still, as a busy machine draws the cursor seldom
    page.evaluate("document.querySelector('#cards video').pause()")
    looking.until(f"Math.abs({cursor} / 100 - document.querySelector('#cards video').currentTime / 2) < 0.02")


def test_filters(visit, answered) -> None:
    looking = visit("trainer")
    cards(looking, 6)
    page = looking.page
    page.check("[name=disagreed]")
    cards(looking, 3)
    assert set(page.locator(".badge").all_inner_texts()) == {"disputed"}
    page.uncheck("[name=disagreed]")
    page.select_option("[name=status]", "label")
    cards(looking, 3)
    page.select_option("[name=status]", "skip")
    looking.said("Nothing answered that looks like this.")
    page.select_option("[name=status]", "")
    page.select_option("[name=annotator]", "ben")
    cards(looking, 6)
    page.select_option("[name=age]", "600")
    cards(looking, 6)


def test_other_runs_of_the_task_and_tests_of_annotators(visit, answered, server) -> None:
    cleo = server.accounts.add("cleo", "annotator")
    ask(answered, 2, run="twin")
    answered.register(Run("stranger", "drawer-open", "The drawer is open."))
    answered.enqueue("stranger", [Question("s", 0, 0), Question("g", 0, 1, gold="left")])
    answered.register(Run("stranger", "drawer-open", "The drawer is open.", options=QueueOptions(gold_every=1)))
    with QueueClient(server.url, cleo) as person:
        for run, count in (("twin", 2), ("stranger", 2)):
            for _ in range(count):
                [lease] = person.lease(run)
                person.answer(lease.lease, "equal")
    looking = visit("trainer", "&run=run")
    cards(looking, 6)
    page = looking.page
    page.select_option("[name=annotator]", "ben")
    page.select_option("[name=among]", "task")
    cards(looking, 6)
    page.select_option("[name=annotator]", "cleo")
    cards(looking, 2)
    assert all(when.startswith("twin, ") for when in page.locator(".when").all_inner_texts())
    page.select_option("[name=among]", "all")
    cards(looking, 3)
    page.select_option("[name=status]", "gold")
    cards(looking, 1)
    assert page.inner_text(".badge") == "test"
    assert page.inner_text(".what") == "known: left is better"
    page.select_option("[name=among]", "run")
    looking.said("Nothing answered that looks like this.")
    assert page.input_value("[name=annotator]") == "", "cleo answered nothing here"


def test_page_after_page(visit, server) -> None:
    with server.client("trainer") as trainer, server.client() as annotator:
        ask(trainer, 30)
        for lease in [lease for _ in range(3) for lease in answer_all(annotator)]:
            assert lease
    looking = visit("trainer")
    cards(looking, 24)
    looking.page.click("#more")
    cards(looking, 30)
    ids = looking.page.locator("article").evaluate_all("all => all.map((card) => card.getAttribute('aria-label'))")
    assert len(set(ids)) == 30
    assert not looking.page.is_visible("#more")


def answer_all(annotator: QueueClient) -> list[int]:
    leases = [lease.lease for lease in annotator.lease("run", 10)]
    for lease in leases:
        annotator.answer(lease, "equal")
    return leases


def test_people_and_how_they_agree(visit, answered) -> None:
    looking = visit("trainer", "&view=people")
    looking.said("the annotator")
    rows = looking.page.locator("#people-rows tr").all_inner_texts()
    assert [row.split("\t")[:4] for row in rows] == [["ben", "6", "0", "4.5 s"], ["the annotator", "6", "0", "4.5 s"]]
    assert rows[0].split("\t")[-1] == "3 of 3 (100 %)"
    assert looking.page.inner_text("#alpha") == f"{answered.agreement('run'):.2f}"
    assert "Krippendorff" in looking.page.inner_text("#alpha-means")
    tiles = looking.page.locator(".tile").all_inner_texts()
    assert tiles[:3] == ["12\nanswers", "3\nlabels", "0\nopen"]


def test_settings_list_the_keys_that_somebody_has(visit, answered) -> None:
    for role, count in (("trainer", 0), ("annotator", 10), ("admin", 10)):
        person = visit(role)
        person.page.click("#settings-button")
        person.said(f"You are the {role} ({role}).")
        assert person.page.locator("#settings-keys tr:visible").count() == count
        assert person.page.is_visible("#reset-keys") == (count > 0)
        assert person.page.is_visible("#settings-note") == (count > 0)


def test_annotators_see_only_their_own_work(visit, answered) -> None:
    person = visit(more="&view=people")
    person.said("You have answered everything there is.")
    assert person.page.locator("#views a:visible").count() == 0
    assert not [url for url in person.requests if url.endswith(("/people", "/answered", "/agreement"))]
    assert person.page.inner_text("#mine") == "6"


def test_an_admin_makes_an_account_whose_link_works(visit, server) -> None:
    with server.client("trainer") as trainer:
        ask(trainer, 3)
        admin = visit("admin", "&view=accounts")
        admin.page.fill("#new-account [name=name]", "dana o'neil")
        admin.page.click("#new-account [type=submit]")
        admin.said("That did not work")  # no name has an apostrophe
        admin.page.fill("#new-account [name=name]", "dana")
        admin.page.click("#new-account [type=submit]")
        admin.said("The link of dana.")
        link = admin.page.input_value("#link")
        admin.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        admin.page.click("#copy")
        admin.said("Copied")
        assert admin.page.evaluate("navigator.clipboard.readText()") == link

        dana = visit(None)
        dana.page.goto(link)
        dana.press("1")
        dana.saved()
        assert [vote.annotator for item in trainer.answered("run") for vote in item.votes] == ["dana"]

        admin.page.on("dialog", lambda dialog: dialog.accept())
        row = admin.page.locator("#account-rows tr", has_text="dana")
        row.get_by_text("Disable").click()
        row.get_by_text("disabled").wait_for()
        dana.press("1")
        dana.said("Your token is not valid any more.")
        row.get_by_text("New link").click()
        admin.said("The link of dana.")
        dana.page.goto(admin.page.input_value("#link"))
        dana.ready()
        dana.saved()
        assert len(votes(trainer)) == 2, "what waited was sent"


def test_an_admin_sees_every_view(visit, answered) -> None:
    admin = visit("admin")
    admin.said("You have answered everything there is.")
    for name, seen in (("Browse", "#cards article"), ("People", "#people-rows tr"), ("Accounts", "#account-rows tr")):
        admin.page.click(f"#views >> text={name}")
        admin.page.wait_for_selector(seen)
    admin.page.click("#views >> text=Label")
    admin.said("You have answered everything there is.")

"""The same labels by three ways: pressed on the page, sent by the client, and read from a file."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from page_support import MIRRORED, ask

from rayrlhf.config import QueueOptions, RewardOptions
from rayrlhf.preferences.answers import Answer, labels_from
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.dataset import PreferenceDataset
from rayrlhf.preferences.exchange import import_file
from rayrlhf.preferences.segments import Queries, Segments
from rayrlhf.preferences.store import Run
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.teachers.human import HumanTeacher

pytestmark = pytest.mark.ui
CHOICES = ("left", "right", "equal", "right", "left", "skip")
KEYS = {"left": "1", "right": "2", "equal": "0", "skip": "s"}
STEPS, OBS, ACTION = 12, 4, 2
SEGMENT = ("obs", "action", "reward", "success", "episode", "start")


def asked(ids: tuple[str, ...]) -> Queries:
    """What the model is fitted to; it need not be what the clips show."""
    rng = np.random.default_rng(0)

    def side() -> Segments:
        obs = rng.normal(size=(len(ids), STEPS, OBS)).astype(np.float32)
        action = rng.uniform(-1, 1, (len(ids), STEPS, ACTION)).astype(np.float32)
        reward = np.zeros((len(ids), STEPS), np.float32)
        numbers = np.arange(len(ids))
        return Segments(obs, action, reward, reward > 0, numbers, numbers)

    return Queries(ids, 0, side(), side())


def lines(queries: Queries) -> Iterator[str]:
    """What somebody else's program writes of their own answers."""
    for i, choice in enumerate(CHOICES):
        sides = {
            side: {name: getattr(segments, name)[i].tolist() for name in SEGMENT}
            for side, segments in (("left", queries.left), ("right", queries.right))
        }
        answers = [{"choice": choice, "annotator": "somebody"}]
        yield json.dumps({"query_id": queries.ids[i], "session": 0, **sides, "answers": answers})


def fitted(queries: Queries, said: list[Answer]) -> dict[str, np.ndarray]:
    ensemble = RewardEnsemble(RewardOptions(hidden=(16,), epochs=5), OBS, ACTION, seed=3)
    ensemble.fit(labels_from(queries, said))
    return ensemble.weights()


def decided(trainer: QueueClient, run: str, queries: Queries) -> list[Answer]:
    """What training gets of a queue where everything is answered."""
    teacher = HumanTeacher(trainer, Run(run, "point", "s", options=QueueOptions(settle_seconds=0)), lambda ids: None)
    teacher.ask(queries)
    teacher.exchange()
    return teacher.collect()


def test_they_give_the_same_reward_model(visit, server, tmp_path: Path) -> None:
    with server.client("trainer") as trainer, server.client() as person:
        pages = ask(trainer, len(CHOICES), run="page", settle_seconds=0.0)
        wanted = dict(zip(pages, CHOICES, strict=True))
        names = {pair: name for name, pair in pages.items()}
        browser = visit(more="&run=page")
        for _ in CHOICES:
            left, right = browser.pair()
            flipped = (left, right) not in names
            choice = wanted[names[(right, left) if flipped else (left, right)]]
            browser.press(KEYS[MIRRORED[choice] if flipped else choice])
        browser.saved()
        clients = ask(trainer, len(CHOICES), run="client", settle_seconds=0.0)
        names = {pair: name for name, pair in clients.items()}
        wanted = dict(zip(clients, CHOICES, strict=True))
        for lease in person.lease("client", len(CHOICES)):
            pair = lease.left_clip, lease.right_clip
            choice = wanted[names.get(pair) or names[pair[::-1]]]
            person.answer(lease.lease, choice if pair in names else MIRRORED[choice])
        by_page = asked(tuple(pages))
        by_client = asked(tuple(clients))
        said_on_page = decided(trainer, "page", by_page)
        models = [fitted(by_page, said_on_page), fitted(by_client, decided(trainer, "client", by_client))]
    file, read = tmp_path / "answers.jsonl", PreferenceDataset(tmp_path / "read")
    file.write_text("".join(f"{line}\n" for line in lines(asked(tuple(f"file/{i}" for i in range(len(CHOICES)))))))
    assert import_file(read, str(file)) == len(CHOICES)
    models.append(fitted(*read.read_session(0)))
    assert len(said_on_page) == len(CHOICES)
    for other in models[1:]:
        assert models[0].keys() == other.keys()
        for name, array in models[0].items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)

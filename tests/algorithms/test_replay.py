"""The ring, and its way to disk and back, against plain lists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrlhf.algorithms import shards
from rayrlhf.algorithms.collector import EPISODE_BITS
from rayrlhf.algorithms.files import Damaged, OnDisk, Parcel, require_digest
from rayrlhf.algorithms.replay import COLUMNS, Replay, Rows
from rayrlhf.algorithms.shards import load_rows, reward_column, save_rows


def _rows(first: int, count: int) -> Rows:
    """Rows that carry their number in every column."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    return Rows(
        obs=number[:, None].repeat(1, 3),
        action=number[:, None].repeat(1, 2),
        next_obs=number[:, None].repeat(1, 3) + 0.5,
        true_reward=number * 2,
        terminated=(number % 7 == 0).float(),
    )


def _filled(capacity: int, sizes: list[int]) -> Replay:
    replay = Replay(capacity, 3, 2)
    for size in sizes:
        replay.insert(_rows(replay.inserted, size), -torch.arange(replay.inserted, replay.inserted + size).float())
    return replay


@given(st.integers(1, 40), st.lists(st.integers(1, 15), max_size=12))
def test_the_newest_rows_survive_whole(capacity: int, sizes: list[int]) -> None:
    sizes = [min(size, capacity) for size in sizes]
    replay = _filled(capacity, sizes)
    expected = list(range(sum(sizes)))[-capacity:]
    held = sorted(int(number) for number in replay.columns["true_reward"][: replay.size] / 2)
    assert held == expected
    batch = replay.gather(torch.arange(replay.size))
    torch.testing.assert_close(batch.next_obs[:, 0], batch.obs[:, 0] + 0.5)
    torch.testing.assert_close(batch.reward, -batch.obs[:, 0])


def test_more_rows_than_the_capacity_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        _filled(4, [5])


def test_relabelling_reaches_every_row_and_only_the_reward() -> None:
    replay = _filled(10, [8, 8])
    replay.relabel(lambda obs, action: obs[:, 0] + 10 * action[:, 0])
    torch.testing.assert_close(replay.reward, 11 * replay.columns["obs"][:, 0])
    replay.use_true_reward()
    torch.testing.assert_close(replay.reward, replay.columns["true_reward"])


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.lists(st.lists(st.integers(1, 12), max_size=6), min_size=1, max_size=4))
def test_saved_and_loaded_replay_is_the_same_slot_by_slot(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, rounds: list[list[int]]
) -> None:
    """Several checkpoints of one ring, written as it grows; the last one restores it, with chunks of ten rows."""
    folder = tmp_path_factory.mktemp("rows")
    replay, chunk = Replay(capacity, 3, 2), shards.CHUNK
    shards.CHUNK = 10
    try:
        for sizes in rounds:
            for size in (min(size, capacity) for size in sizes):
                replay.insert(
                    _rows(replay.inserted, size), -torch.arange(replay.inserted, replay.inserted + size).float()
                )
            entry = save_rows(replay, OnDisk(folder), 0)
        again = Replay(capacity, 3, 2)
        load_rows(again, OnDisk(folder), [entry], [reward_column(replay)], slice(None))
    finally:
        shards.CHUNK = chunk
    assert (again.inserted, again.size) == (replay.inserted, replay.size)
    for name in COLUMNS:
        assert torch.equal(again.columns[name][: again.size], replay.columns[name][: replay.size]), name
    assert torch.equal(again.reward[: again.size], replay.reward[: replay.size])


def test_complete_chunks_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "CHUNK", 10)
    replay = _filled(100, [25])
    first = save_rows(replay, OnDisk(tmp_path), 0)
    stamps = {c["name"]: (tmp_path / c["name"]).stat().st_mtime_ns for c in first["chunks"][:2]}
    replay.insert(_rows(25, 10), torch.zeros(10))
    second = save_rows(replay, OnDisk(tmp_path), 0)
    assert second["chunks"][:2] == first["chunks"][:2]
    assert stamps == {name: (tmp_path / name).stat().st_mtime_ns for name in stamps}


@pytest.mark.usefixtures("ray_session")
def test_rows_travel_to_a_folder_that_the_learner_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there already does not travel again, and what came back is what a learner on that machine writes."""
    monkeypatch.setattr(shards, "CHUNK", 10)
    replay, here = _filled(100, [25]), tmp_path / "rows"
    first = Parcel(here)
    save_rows(replay, first, 0)
    assert not here.exists()
    first.unpack()
    replay.insert(_rows(25, 10), torch.zeros(10))
    second = Parcel(here, there=frozenset(path.name for path in here.iterdir()))
    entry = save_rows(replay, second, 0)
    second.unpack()
    names = [chunk["name"] for chunk in entry["chunks"]]
    assert set(second.contents) == set(names[2:])
    again = Replay(100, 3, 2)
    load_rows(again, Parcel.of(here, names), [entry], [reward_column(replay)], slice(None))
    for name in COLUMNS:
        assert torch.equal(again.columns[name][:35], replay.columns[name][:35]), name
    for chunk in entry["chunks"]:
        require_digest(here / chunk["name"], chunk["digest"])
    (here / names[0]).unlink()
    with pytest.raises(Damaged, match="is missing"):
        Parcel.of(here, names)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_another_number_of_learners_re_deals_every_row_once(tmp_path: Path, before: int, after: int) -> None:
    old = [_filled(50, [11 + 3 * index]) for index in range(before)]
    entries = [save_rows(replay, OnDisk(tmp_path), index) for index, replay in enumerate(old)]
    rewards = [reward_column(replay) for replay in old]
    new = [Replay(60, 3, 2) for _ in range(after)]
    for index, replay in enumerate(new):
        load_rows(replay, OnDisk(tmp_path), entries, rewards, slice(index, None, after))
    dealt = np.sort(np.concatenate([replay.columns["true_reward"][: replay.size].numpy() for replay in new]))
    expected = np.sort(np.concatenate([replay.columns["true_reward"][: replay.size].numpy() for replay in old]))
    np.testing.assert_array_equal(dealt, expected)
    assert max(replay.size for replay in new) - min(replay.size for replay in new) <= 1


@dataclass
class _Stream:
    """One environment's transitions, made up: episodes of their own lengths, of which some end the task."""

    environment: int
    rng: np.random.Generator
    episode: int = 0
    step: int = 0

    def __next__(self) -> dict[str, float]:
        length = 2 + (self.environment + self.episode) % 4
        last = self.step == length - 1
        key = (self.environment << EPISODE_BITS) | self.episode
        row = {"episode": key, "step": self.step, "number": self.rng.random(), "reward": self.rng.random()}
        row |= {"last": last, "terminated": float(last and self.episode % 2)}
        self.step, self.episode = (0, self.episode + 1) if last else (self.step + 1, self.episode)
        return row


def _as_rows(stream: list[dict[str, float]]) -> Rows:
    column = {name: torch.tensor([row[name] for row in stream], dtype=torch.float64) for name in stream[0]}
    number = column["number"].float()
    wide = number[:, None].repeat(1, 3)
    places = column["episode"].long(), column["step"].long()
    return Rows(wide, number[:, None].repeat(1, 2), wide + 1, number, column["terminated"].float(), *places)


@settings(max_examples=60)
@given(
    st.integers(2, 5),
    st.integers(8, 60),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1)), min_size=1, max_size=14),
    st.integers(0, 1000),
)
def test_returns_of_several_steps(n_step: int, capacity: int, pieces: list[tuple[int, int]], seed: int) -> None:
    """Each the discounted rewards from the row on: up to n, no further than its episode, or than what is here.

    Two actors of two environments insert fragments of any length in any order, more of them than the ring holds.
    """
    gamma, rng = 0.9, np.random.default_rng(seed)
    actors = [[_Stream(2 * actor + env, rng) for env in range(2)] for actor in range(2)]
    replay = Replay(capacity, 3, 2, n_step=n_step, gamma=gamma)
    everything: list[dict[str, float]] = []
    for steps, actor in pieces:
        rows = [next(stream) for _ in range(steps) for stream in actors[actor]]
        replay.insert(_as_rows(rows), torch.tensor([row["reward"] for row in rows]))
        everything += rows
    held = everything[-capacity:]
    by_place = {(row["episode"], row["step"]): row for row in held}
    first = len(everything) - len(held)
    for number, row in enumerate(held, start=first):
        slot = number % capacity
        total, last, taken = row["reward"], row, 1
        while taken < n_step and (last["episode"], last["step"] + 1) in by_place:
            last = by_place[last["episode"], last["step"] + 1]
            total += gamma**taken * last["reward"]
            taken += 1
        batch = replay.gather(torch.tensor([slot]))
        assert batch.discount is not None
        assert batch.reward.item() == pytest.approx(total, abs=1e-5)
        assert batch.discount.item() == pytest.approx(gamma**taken, abs=1e-6)
        assert batch.next_obs[0, 0].item() == pytest.approx(last["number"] + 1, abs=1e-6)
        assert batch.terminated.item() == last["terminated"]
        assert batch.obs[0, 0].item() == pytest.approx(row["number"], abs=1e-6)


@pytest.mark.parametrize("n_step", [1, 3])
def test_parts_of_a_reward_make_one_by_their_weights(n_step: int, tmp_path: Path) -> None:
    """Which may change without anything being written anew; what has no parts has zeros in the others."""
    rng, weights = np.random.default_rng(0), torch.tensor([1.0, 0.0])
    streams = [_Stream(env, rng) for env in range(3)]
    replay, again = (Replay(40, 3, 2, n_step=n_step, gamma=0.9, weights=weights) for _ in range(2))
    parts, rows = (
        torch.from_numpy(rng.normal(size=(30, 2)).astype(np.float32)),
        [next(s) for _ in range(10) for s in streams],
    )
    replay.insert(_as_rows(rows), parts)
    entry = save_rows(replay, OnDisk(tmp_path), 0)
    load_rows(again, OnDisk(tmp_path), [entry], [reward_column(replay)], slice(None))
    index = torch.arange(30)
    for weight in (0.0, 0.7):
        weights[1] = weight
        plain = Replay(40, 3, 2, n_step=n_step, gamma=0.9)
        plain.insert(_as_rows(rows), parts[:, 0] + weight * parts[:, 1])
        for one in (replay, again):
            torch.testing.assert_close(one.gather(index).reward, plain.gather(index).reward)
    replay.insert(_as_rows([next(s) for s in streams]), torch.tensor([1.0, 2.0, 3.0]))
    assert replay.reward[30:33].tolist() == [[1, 0], [2, 0], [3, 0]]
    replay.use_true_reward()
    torch.testing.assert_close(replay.reward[:33, 0], replay.columns["true_reward"][:33])
    assert not replay.reward[:, 1].any()


def test_returns_of_several_steps_after_a_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "CHUNK", 16)
    rng = np.random.default_rng(0)
    streams = [_Stream(env, rng) for env in range(3)]
    replay, again = (Replay(50, 3, 2, n_step=3, gamma=0.9) for _ in range(2))
    for _ in range(9):
        rows = [next(stream) for _ in range(3) for stream in streams]
        replay.insert(_as_rows(rows), torch.tensor([row["reward"] for row in rows]))
    entry = save_rows(replay, OnDisk(tmp_path), 0)
    load_rows(again, OnDisk(tmp_path), [entry], [reward_column(replay)], slice(None))
    order = torch.arange(replay.inserted - replay.size, replay.inserted) % 50
    one, other = replay.gather(order), again.gather(torch.arange(replay.inserted - replay.size, again.inserted) % 50)
    for name, column in vars(one).items():
        torch.testing.assert_close(getattr(other, name), column, rtol=0, atol=0, msg=name)


def test_rows_of_returns_of_one_step_serve_one_of_several(tmp_path: Path) -> None:
    """Another run's exploration, of which nobody noted what follows what: each stands for itself."""
    replay, again = _filled(100, [25]), Replay(100, 3, 2, n_step=3, gamma=0.9)
    entry = save_rows(replay, OnDisk(tmp_path), 0)
    load_rows(again, OnDisk(tmp_path), [entry], [reward_column(replay)], slice(None))
    rows = [next(stream) for stream in [_Stream(0, np.random.default_rng(0))] for _ in range(2)]
    again.insert(_as_rows(rows), torch.tensor([row["reward"] for row in rows]))
    again_once_more = Replay(100, 3, 2, n_step=3, gamma=0.9)
    entry = save_rows(again, OnDisk(tmp_path / "more"), 0)
    load_rows(again_once_more, OnDisk(tmp_path / "more"), [entry], [reward_column(again)], slice(None))
    for one in (again, again_once_more):
        assert one.successor[:27].tolist() == [*[-1] * 25, 26, -1]
        torch.testing.assert_close(one.gather(torch.arange(25)).reward, replay.reward[:25])

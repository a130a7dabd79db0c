"""SURF's crops and pseudo-labels against the paper's formulas with autograd, and where the context comes from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.config import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.preferences.segments import Segments
from rayrlhf.rewards import Episodes, MLPReward, RewardEnsemble
from rayrlhf.rewards.crops import draw_crops, inside
from rayrlhf.rewards.plan import Plan

OBS, ACTION, STEPS, CROP = 4, 2, 6, 2
PLANS = {
    "one after the other": Plan(stacked=False, fit_rows=2048, score_rows=2048),
    "stacked, padded, in chunks": Plan(stacked=True, fit_rows=60, score_rows=60, padded=True),
}


@given(
    length=st.integers(2, 12),
    most=st.integers(1, 5),
    lost=st.lists(st.tuples(*[st.integers(0, 5)] * 4), min_size=1, max_size=20),
    seed=st.integers(0, 2**32 - 1),
)
def test_crops_are_of_one_length_and_within_what_is_known(
    length: int, most: int, lost: list[tuple[int, ...]], seed: int
) -> None:
    most = min(most, length - 1)
    gone = np.minimum(np.array(lost).reshape(-1, 2, 2), most)
    known = np.stack([gone[..., 0], length + 2 * most - gone[..., 1]], axis=-1)
    crops = draw_crops(known, length, most, np.random.default_rng(seed))
    size = crops[..., 1] - crops[..., 0]
    assert (size[:, 0] == size[:, 1]).all() and (size >= length - most).all() and (size <= length + most).all()
    assert (crops[..., 0] >= known[..., 0]).all() and (crops[..., 1] <= known[..., 1]).all()
    counted = inside(torch.from_numpy(crops), length + 2 * most)
    np.testing.assert_array_equal(counted.sum(-1), size)
    for row, (first, end) in zip(counted.reshape(-1, length + 2 * most), crops.reshape(-1, 2), strict=True):
        assert row.tolist() == [float(first <= step < end) for step in range(length + 2 * most)]


def test_every_length_and_start_occurs() -> None:
    known = np.broadcast_to(np.array([0, 14]), (5000, 2, 2))
    crops = draw_crops(known, 10, 2, np.random.default_rng(0))
    size = crops[:, 0, 1] - crops[:, 0, 0]
    assert np.bincount(size, minlength=13)[8:].min() > 850 and set(size.tolist()) == set(range(8, 13))
    of_eight = crops[size == 8]
    assert set(of_eight[:, 0, 0].tolist()) == set(of_eight[:, 1, 0].tolist()) == set(range(7))
    assert (of_eight[:, 0, 0] != of_eight[:, 1, 0]).any(), "each side from a start of its own"


def _with_context(segments: Segments, seed: int) -> Segments:
    rng = np.random.default_rng(seed)
    context = rng.normal(size=(len(segments), 2 * CROP, OBS + ACTION)).astype(np.float32)
    context[0, :1] = np.nan  # the episode began a step before the segment
    context[1, CROP:] = np.nan  # and another ended with it
    columns = {name: getattr(segments, name) for name in ("obs", "action", "reward", "success", "episode", "start")}
    return Segments(**columns, context=context)


def _wide(segments: Segments) -> torch.Tensor:
    assert segments.context is not None
    inside = np.concatenate([segments.obs, segments.action], axis=2)
    before, after = segments.context[:, :CROP], segments.context[:, CROP:]
    return torch.from_numpy(np.concatenate([before, inside, after], axis=1)).nan_to_num()


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_an_epoch_is_the_papers(plan: Plan, make_labels) -> None:
    """Equations 3 to 5, pair by pair, with autograd and plain Adam."""
    options = RewardOptions(
        hidden=(16,), members=2, batch_size=8, crop=CROP, unlabelled=3, unlabelled_confidence=0.6, unlabelled_weight=0.7
    )
    plain = make_labels(12)
    labels = Labels(_with_context(plain.left, 1), _with_context(plain.right, 2), plain.target)
    rng = np.random.default_rng(3)
    episodes = Episodes(rng.normal(size=(60, OBS + ACTION)).astype(np.float32), np.array([25, 8, 27]))
    ensemble = RewardEnsemble(options, OBS, ACTION, seed=0, plan=plan)
    networks = []
    for member in range(2):
        network = MLPReward(OBS, ACTION, options)
        weights = ensemble.weights()
        network.load_state_dict(
            {
                name.removeprefix("network/"): torch.from_numpy(value[member].copy())
                for name, value in weights.items()
                if "/" in name and name.startswith("network/")
            }
        )
        networks.append(network)
    ensemble.take_unlabelled(episodes)
    ensemble._table.update(labels)
    crops, drawn = ensemble._crops(labels), ensemble._drawn(labels, steps=2)
    assert crops is not None and drawn is not None and drawn.start.shape == (2, 2, 24, 2)
    orders = [ensemble._stream("shuffle", member).permutation(12) for member in range(2)]
    starts, crop_of, pairs_of = drawn.start.clone(), crops.clone(), drawn.crops.clone()
    report = ensemble.fit_epoch(labels)

    sides = [_wide(labels.left), _wide(labels.right)]
    rows = torch.from_numpy(episodes.rows)
    sure = np.zeros(2)
    for member, network in enumerate(networks):
        adam = torch.optim.Adam(network.parameters(), lr=options.lr, eps=1e-8)

        def reward(x: torch.Tensor, network: MLPReward = network) -> torch.Tensor:
            return network(x[:, :OBS], x[:, OBS:])

        for number, batch in enumerate((orders[member][:8], orders[member][8:])):
            losses = []
            for i in batch:
                cut = [side[i][slice(*crop_of[member, i, j].tolist())] for j, side in enumerate(sides)]
                assert len(cut[0]) == len(cut[1])
                p = torch.sigmoid(reward(cut[1]).sum() - reward(cut[0]).sum())
                y = float(labels.target[i])
                losses.append(-(y * p.log() + (1 - y) * (1 - p).log()))
            unsupervised = []
            for pair, crop in zip(starts[member, number], pairs_of[member, number], strict=True):
                whole = [rows[start : start + STEPS + 2 * CROP] for start in pair.tolist()]
                shown = [reward(side[CROP:-CROP]).sum() for side in whole]
                right = torch.sigmoid(shown[1] - shown[0]).item()
                if max(right, 1 - right) < 0.6:
                    unsupervised.append(torch.zeros(()))
                    continue
                sure[member] += 1
                sums = [reward(side[slice(*crop[j].tolist())]).sum() for j, side in enumerate(whole)]
                p = torch.sigmoid(sums[1] - sums[0])
                unsupervised.append(-(p.log() if right > 0.5 else (1 - p).log()))
            adam.zero_grad()
            (torch.stack(losses).mean() + 0.7 * torch.stack(unsupervised).mean()).backward()
            adam.step()
    after = ensemble.weights()
    for member, network in enumerate(networks):
        for name, value in network.state_dict().items():
            np.testing.assert_allclose(after[f"network/{name}"][member], value, rtol=2e-4, atol=2e-6, err_msg=name)
    assert report.pseudo is not None and report.pseudo.min() > 0 and report.pseudo.max() < 1
    np.testing.assert_allclose(report.pseudo, sure / 48, rtol=1e-6)


def test_starts_never_cross_an_episodes_border() -> None:
    episodes = Episodes(np.zeros((20, 3), np.float32), np.array([4, 9, 7]))
    assert episodes.starts(5).tolist() == [4, 5, 6, 7, 8, 13, 14, 15]
    assert episodes.starts(10).tolist() == []


def test_episodes_too_short_for_context_give_no_pairs(make_labels) -> None:
    """Then labels alone are learnt from."""
    options = RewardOptions(hidden=(8,), batch_size=8, epochs=2, crop=CROP, unlabelled=2)
    ensemble = RewardEnsemble(options, OBS, ACTION, seed=0)
    ensemble.take_unlabelled(Episodes(np.zeros((12, OBS + ACTION), np.float32), np.array([6, 6])))
    assert ensemble.fit(make_labels(10)).pseudo is None

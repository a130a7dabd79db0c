"""Running moments against NumPy over all rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayrlhf.rewards import RunningMoments

FLOATS = st.floats(-1e3, 1e3, width=32)
BATCH = st.integers(0, 7).flatmap(lambda rows: hnp.arrays(np.float32, (rows, 3), elements=FLOATS))


@given(st.lists(BATCH, min_size=1, max_size=6))
def test_equals_the_moments_of_all_rows_at_once(batches: list[np.ndarray]) -> None:
    moments = RunningMoments((3,))
    for batch in batches:
        moments.update(torch.from_numpy(batch))
    rows = np.concatenate(batches).astype(np.float64)
    assert float(moments.count) == len(rows)
    if len(rows):
        np.testing.assert_allclose(moments.mean.numpy(), rows.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(moments.std.numpy(), rows.std(0), rtol=1e-5, atol=1e-5)


def test_changes_nothing_before_the_first_row() -> None:
    moments = RunningMoments((2,))
    assert moments.mean.tolist() == [0.0, 0.0] and moments.std.tolist() == [1.0, 1.0]


def test_state_restores_bit_for_bit() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    moments, restored = RunningMoments((3,)), RunningMoments((3,))
    moments.update(x[:20])
    restored.load_state(moments.state())
    for each in (moments, restored):
        each.update(x[20:])
    assert all(torch.equal(moments.state()[name], restored.state()[name]) for name in moments.state())


def test_refuses_rows_of_another_shape() -> None:
    with pytest.raises(ValueError, match="rows have shape"):
        RunningMoments((3,)).update(torch.zeros(5, 2))

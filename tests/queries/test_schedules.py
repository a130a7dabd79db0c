"""Session sizes: exact sums, no empty session, worked examples."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rayrlhf.errors import UserError
from rayrlhf.queries.schedules import WEIGHTS, session_sizes

budgets = st.integers(1, 20_000)
per_sessions = st.integers(1, 500)
schedules = st.sampled_from(sorted(WEIGHTS))


@given(budgets, per_sessions, schedules)
@example(4000, 50, "hyperbolic")
@example(1, 1, "linear")
@example(1000, 1, "linear")  # a label per session leaves the last quotas below one
def test_sizes_sum_to_the_budget_and_leave_no_session_empty(budget: int, per_session: int, schedule: str) -> None:
    sizes = session_sizes(budget, per_session, schedule)
    assert sum(sizes) == budget
    assert len(sizes) == math.ceil(budget / per_session)
    assert min(sizes) >= 1
    assert sizes == sorted(sizes, reverse=True)


@given(budgets, per_sessions)
def test_constant_asks_per_session_and_the_remainder_last(budget: int, per_session: int) -> None:
    sizes = session_sizes(budget, per_session, "constant")
    assert set(sizes[:-1]) <= {per_session}
    assert 1 <= sizes[-1] <= per_session


@given(budgets, per_sessions, st.sampled_from(["linear", "exponential", "hyperbolic"]))
def test_sizes_are_proportional_to_the_weights_but_for_rounding(budget: int, per_session: int, schedule: str) -> None:
    sizes = session_sizes(budget, per_session, schedule)
    weights = [WEIGHTS[schedule](s / len(sizes)) for s in range(len(sizes))]
    total = sum(weights)
    quotas = [budget * weight / total for weight in weights]
    if min(quotas) >= 1:
        assert all(abs(size - quota) < 1 + 1e-6 for size, quota in zip(sizes, quotas, strict=True))


@pytest.mark.parametrize(
    ("schedule", "sizes"),
    [
        ("constant", [100, 100, 100, 100]),
        ("linear", [160, 120, 80, 40]),  # 1, 3/4, 1/2, 1/4
        ("exponential", [198, 109, 60, 33]),  # 198.40, 108.94, 59.82, 32.85
        ("hyperbolic", [255, 73, 42, 30]),  # 1, 1/3.5, 1/6, 1/8.5: 254.77, 72.79, 42.46, 29.97
    ],
)
def test_worked_examples(schedule: str, sizes: list[int]) -> None:
    assert session_sizes(400, 100, schedule) == sizes


@pytest.mark.parametrize(("budget", "per_session"), [(0, 10), (-1, 10), (10, 0), (10, -5)])
def test_budgets_that_are_not_positive_are_refused(budget: int, per_session: int) -> None:
    with pytest.raises(UserError, match="above zero"):
        session_sizes(budget, per_session)


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'hyperbolic'"):
        session_sizes(10, 5, "hyperbola")

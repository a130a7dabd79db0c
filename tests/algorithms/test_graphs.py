"""The learner on a GPU: what a graph replays is what the update does."""

import numpy as np
import pytest
import torch

from rayrlhf.algorithms.sac_learner import PebbleLearner
from rayrlhf.bench.data import learner_of, random_fragment, ray_session
from rayrlhf.config import ExploreOptions, RunConfig, SacOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def learner(*, graphed: bool, precision: str = "float32", exploring: bool = False) -> PebbleLearner:
    run = RunConfig(
        mode="preferences" if exploring else "oracle",
        sac=SacOptions(hidden=(64, 64), batch_size=64, precision=precision, layer_norm=True),  # type: ignore[arg-type]
        total_steps=10_000,
        explore=ExploreOptions(seed_steps=0, unsupervised_steps=5000 if exploring else 0),
    )
    made = learner_of(run, device="cuda")
    assert made._device.type == "cuda"
    if not graphed:
        made._one_update = made._draw_and_update  # type: ignore[method-assign]
    if not exploring:
        made.reward_with("true")
    return made


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_replayed_update_is_the_eager_one(precision: str) -> None:
    """While the replay grows, across a critic's reset and a save and load of the optimisers."""
    with ray_session():
        both = [learner(graphed=graphed, precision=precision) for graphed in (True, False)]
        for round_number in range(4):
            for each in both:
                each.insert([random_fragment(500, seed=round_number)])
            found = [each.learn(9) for each in both]
            assert found[0].keys() == found[1].keys()
            np.testing.assert_allclose(list(found[0].values()), list(found[1].values()), rtol=2e-3)
            for each in both:
                if round_number == 1:
                    each.reset_critic()
                if round_number == 2:
                    each.load_arrays(each.arrays())
        assert both[0]._graphs is not None
        states = [each.arrays() for each in both]
        assert states[0].keys() == states[1].keys()
        for name in states[0]:
            np.testing.assert_allclose(states[0][name], states[1][name], rtol=2e-2, atol=2e-4, err_msg=name)
        assert all(torch.equal(both[0].generator.get_state(), each.generator.get_state()) for each in both)


def test_exploration_is_replayed_too() -> None:
    """While lists fill up (three states have two neighbours each), grow and move, and when exploration ends."""
    with ray_session():
        both = [learner(graphed=graphed, exploring=True) for graphed in (True, False)]
        layouts = set()
        for round_number, rows in enumerate((3, 500, 700, 100, 3000, 10)):
            for each in both:
                if round_number == 5:
                    each.reward_with("true")
                each.insert([random_fragment(rows, seed=round_number)])
            found = [each.learn(9) for each in both]
            np.testing.assert_allclose(list(found[0].values()), list(found[1].values()), rtol=2e-3)
            assert both[0]._graphs is not None
            layouts.add(both[0]._graphs.layout)
        assert len(layouts) >= 4 and None in layouts
        states = [each.arrays() for each in both]
        for name in states[0]:
            np.testing.assert_allclose(states[0][name], states[1][name], rtol=2e-2, atol=2e-4, err_msg=name)

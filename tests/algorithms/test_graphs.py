"""The learner on a GPU: what a graph replays is what the update does."""

import numpy as np
import pytest
import torch

from rayrlhf.algorithms.ppo_learner import PrefPpoLearner
from rayrlhf.algorithms.sac_learner import PebbleLearner
from rayrlhf.bench.data import learner_of, random_fragment, ray_session
from rayrlhf.bench.learner import acted
from rayrlhf.config import ExploreOptions, PpoOptions, RunConfig, SacOptions

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


def ppo_learner(*, graphed: bool) -> PrefPpoLearner:
    run = RunConfig(
        algorithm="prefppo",
        mode="oracle",
        ppo=PpoOptions(hidden=(64, 64), batch_size=100, kl_coefficient=0.1),
        explore=ExploreOptions(unsupervised_steps=0),
    )
    made: PrefPpoLearner = learner_of(run, device="cuda")
    if not graphed:
        made._one_step = made._step  # type: ignore[method-assign]
    made.reward_with("true")
    return made


def test_a_replayed_step_of_ppo_is_the_eager_one() -> None:
    """While the clip falls and the penalty moves, with more rows in one iteration, and across a save and load."""
    with ray_session():
        both = [ppo_learner(graphed=graphed) for graphed in (True, False)]
        for number, rows in enumerate((800, 800, 1600, 800)):
            fragment = acted(random_fragment(rows, seed=number))
            for each in both:
                each.insert([fragment])
            found = [each.learn(2, rows // 100, 0.4 - 0.1 * number) for each in both]
            assert both[0]._graphs is not None
            np.testing.assert_allclose(list(found[0].values()), list(found[1].values()), rtol=2e-3, atol=1e-5)
            if number == 2:
                for each in both:
                    each.load_arrays(each.arrays())
        states = [each.arrays() for each in both]
        assert states[0].keys() == states[1].keys()
        for name in states[0]:
            np.testing.assert_allclose(states[0][name], states[1][name], rtol=2e-2, atol=2e-4, err_msg=name)

"""Policies in the simulator's own units."""

import numpy as np
import torch

from rayrlhf.config import EnvOptions, SacOptions
from rayrlhf.envs import EnvSpec, make_env
from rayrlhf.envs.loop import LoopEnv
from rayrlhf.policies import DeployedPolicy, SquashedActor


def test_a_deployed_action_is_what_the_simulator_gets_in_training() -> None:
    env = make_env(EnvOptions(suite="gymnasium", task="Pendulum-v1", horizon=10), 1, seed=0)
    assert isinstance(env, LoopEnv)
    torch.manual_seed(0)
    actor = SquashedActor(3, 1, SacOptions(hidden=(8,)))
    deployed = DeployedPolicy(actor, *env.spec.bounds())
    obs = torch.from_numpy(env.reset([0]))
    with torch.inference_mode():
        env.step(actor.act(obs, None).numpy())
        pushed = env.envs[0]._env.unwrapped.last_u  # type: ignore[attr-defined]
        np.testing.assert_array_equal(deployed(obs).numpy()[0], np.float32([pushed]))
    assert env.spec.bounds()[1] == 2.0 and abs(pushed) > 1e-3
    env.close()


def test_bounds_of_simulators_that_have_none_of_their_own() -> None:
    low, high = EnvSpec("x", 4, 3, 10).bounds()
    assert low.tolist() == [-1, -1, -1] and high.tolist() == [1, 1, 1]


def test_no_action_leaves_the_bounds() -> None:
    """Rounded to 32 bits, the middle and half of these bounds add up to more than their upper end."""
    low, high = np.float32([-0.2, -3.0, 2.0]), np.float32([0.1, 1.0, 2.0])
    spec = EnvSpec("x", 4, 3, 10, low=tuple(map(float, low)), high=tuple(map(float, high)))
    policy = DeployedPolicy(_saturated(), *spec.bounds())
    assert (policy.middle + policy.reach > torch.from_numpy(high)).any(), "or this tests nothing"
    for sign in (1.0, -1.0):
        action = policy(sign * torch.full((1, 4), 1e4)).detach().numpy()[0]
        np.testing.assert_array_equal(action, high if sign > 0 else low)


def _saturated() -> SquashedActor:
    actor = SquashedActor(4, 3, SacOptions(hidden=()))
    for parameter in actor.parameters():
        torch.nn.init.constant_(parameter, 0.0)
    last = actor.trunk[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.constant_(last.weight[:3], 1.0)
    return actor


def test_actions_in_the_simulators_units_are_what_training_saw() -> None:
    policy = DeployedPolicy(_saturated(), np.float32([-3.0, 0.0, 2.0]), np.float32([1.0, 5.0, 2.0]))
    unit = policy.to_unit(torch.tensor([[-3.0, 5.0, 2.0], [-1.0, 2.5, 2.0], [9.0, -9.0, 2.0]]))
    assert unit.tolist() == [[-1, 1, 0], [0, 0, 0], [1, -1, 0]]

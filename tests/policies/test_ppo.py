"""PPO's update against the papers' equations, written slowly, and against RLlib's advantages."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets
from torch import Tensor

from rayrlhf.config import PpoOptions
from rayrlhf.policies.ppo import GaussianActor, PpoNetworks, PpoUpdate, Rows, advantages

GAMMA, LAMBDA = 0.97, 0.9
OPTIONS = PpoOptions(hidden=(16, 16), lr=1e-3, entropy_coefficient=0.01, kl_coefficient=0.25)
CLIP = torch.tensor(0.25)  # exact in float32, too


def _steps(count: int, envs: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reward, value, next_value = (torch.randn(count, envs, generator=generator, dtype=torch.float64) for _ in range(3))
    terminated, cut = ((torch.rand(count, envs, generator=generator) < 0.2).double() for _ in range(2))
    done = torch.maximum(terminated, cut)
    for step in range(count - 1):  # within an episode the state after a step is the one before the next
        next_value[step] = torch.where(done[step] > 0, next_value[step], value[step + 1])
    return {"reward": reward, "value": value, "next_value": next_value, "terminated": terminated, "done": done}


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 10**6))
def test_advantages_are_the_sums_of_the_paper(count: int, envs: int, seed: int) -> None:
    """Each the sum of (gamma lambda)^l delta_{t+l} up to the end of its episode, or of what was collected."""
    steps = _steps(count, envs, seed)
    found = advantages(**steps, gamma=GAMMA, lam=LAMBDA)
    for env in range(envs):
        reward, value, next_value, terminated, done = (column[:, env].tolist() for column in steps.values())
        delta = [reward[t] + (0.0 if terminated[t] else GAMMA * next_value[t]) - value[t] for t in range(count)]
        for t in range(count):
            total, weight = 0.0, 1.0
            for later in range(t, count):
                total += weight * delta[later]
                weight *= GAMMA * LAMBDA
                if done[later]:
                    break
            assert found[t, env].item() == pytest.approx(total, abs=1e-9)


def test_advantages_are_rllibs() -> None:
    """Which has all episodes in a row, each with its last state's value behind it."""
    steps = _steps(40, 1, seed=3)
    steps["done"][-1] = 1.0
    reward, value, next_value, terminated, done = (column[:, 0].numpy() for column in steps.values())
    rows: dict[str, list[float]] = {"values": [], "rewards": [], "terminateds": [], "truncateds": []}
    mine: list[bool] = []
    for t in range(40):
        cut = done[t] * (1 - terminated[t])
        extra = [(next_value[t], 0.0, 0.0, 1.0)] if done[t] else []
        for v, r, ended, stopped in [(value[t], reward[t], terminated[t], cut), *extra]:
            for name, number in zip(rows, (v, r, ended, stopped), strict=True):
                rows[name].append(float(number))
        mine += [True, *(False for _ in extra)]
    targets = compute_value_targets(*(np.array(column) for column in rows.values()), gamma=GAMMA, lambda_=LAMBDA)
    found = advantages(**steps, gamma=GAMMA, lam=LAMBDA)[:, 0].numpy()
    np.testing.assert_allclose(found, (targets - np.array(rows["values"]))[mine], atol=1e-5)


def test_log_probabilities_are_torchs_own() -> None:
    torch.manual_seed(0)
    actor = GaussianActor(5, 3, OPTIONS)
    obs = torch.randn(7, 5)
    mean, log_std = actor(obs)
    normal = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(actor.entropy(), normal.entropy().sum(-1)[0])
    noise = torch.randn(7, 3)
    sampled, log_prob = actor.sample(obs, noise)
    torch.testing.assert_close(sampled, mean + noise * log_std.exp())
    torch.testing.assert_close(log_prob, normal.log_prob(sampled).sum(-1), rtol=1e-4, atol=1e-4)
    assert actor.act(obs, 100 * noise).abs().max() == 1.0
    torch.testing.assert_close(actor.act(obs, None), mean.clamp(-1, 1))


def _networks() -> PpoNetworks:
    torch.manual_seed(0)
    return PpoNetworks(5, 3, OPTIONS).double()


def _rows(networks: PpoNetworks, count: int) -> Rows:
    """Collected by a policy that is somewhat different from the networks' own."""
    torch.manual_seed(1)
    obs, action = torch.randn(count, 5).double(), torch.randn(count, 3).double()
    with torch.no_grad():
        mean, log_std = networks.actor(obs)
        log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1)
        log_prob += 0.3 * torch.randn(count).double()
    return Rows(obs, action, log_prob, torch.randn(count).double() + 0.5, torch.randn(count).double())


def test_one_step_is_the_papers() -> None:
    networks = _networks()
    slow, rows = copy.deepcopy(networks), _rows(networks, 64)
    found = dict(zip(PpoUpdate.MEASURES, PpoUpdate(networks, OPTIONS)(rows, clip=CLIP), strict=True))

    advantage = (rows.advantage - rows.advantage.mean()) / (rows.advantage.std() + 1e-8)
    mean, log_std = slow.actor(rows.seen)
    normal = torch.distributions.Normal(mean, log_std.exp())
    ratio = torch.exp(normal.log_prob(rows.action).sum(-1) - rows.log_prob)
    clipped = torch.where(ratio > 1.25, 1.25, torch.where(ratio < 0.75, 0.75, ratio))
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    value_loss = ((slow.critic(rows.seen)[:, 0] - rows.goal) ** 2).mean()
    entropy = normal.entropy().sum(-1).mean()
    kl = (ratio - 1 - ratio.log()).mean()
    loss = policy_loss + 0.5 * value_loss - 0.01 * entropy + 0.25 * kl
    parameters = list(slow.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        scaled = gradient * min(1.0, 0.5 / norm.item())
        parameter.data -= 1e-3 * scaled / (scaled.abs() + 1e-5)  # Adam's first step
    for name, parameter in networks.named_parameters():
        torch.testing.assert_close(parameter, slow.get_parameter(name), rtol=1e-4, atol=1e-7, msg=name)
    assert 0 < found["clipped"] < 1 and found["clipped"] == ((ratio - 1).abs() > 0.25).double().mean()
    torch.testing.assert_close(found["policy_loss"], policy_loss.detach())
    torch.testing.assert_close(found["kl"], kl.detach())
    assert norm > 0.5, "or clipping was not tested"


def test_parts_add_up_to_the_whole_batch() -> None:
    whole, parted = _networks(), _networks()
    rows = _rows(whole, 60)
    one, other = PpoUpdate(whole, OPTIONS), PpoUpdate(parted, OPTIONS, parts=4)
    for _ in range(5):
        found, again = one(rows, clip=CLIP), other(rows, clip=CLIP)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parameter, parted.get_parameter(name), rtol=1e-7, atol=1e-10, msg=name)
    torch.testing.assert_close(found, again)
    with pytest.raises(ValueError, match="no 7 equal parts"):
        PpoUpdate(whole, OPTIONS, parts=7)(rows, clip=CLIP)


def test_networks_see_standardised_observations() -> None:
    torch.manual_seed(0)
    networks = PpoNetworks(3, 2, OPTIONS)
    moments = networks.actor.moments
    assert moments is not None
    obs = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0]])
    assert torch.equal(networks.actor.standardise(obs), obs)
    moments.update(torch.randn(10_000, 3) * torch.tensor([2.0, 0.1, 0.0]) + torch.tensor([1.0, 5.0, 0.0]))
    seen = networks.actor.standardise(obs)
    torch.testing.assert_close(seen, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), rtol=0, atol=0.06)
    assert networks.actor.standardise(torch.tensor([[1e6, -1e6, 1.0]])).tolist() == [[10.0, -10.0, 10.0]]
    torch.testing.assert_close(networks.actor(obs)[0], networks.actor.trunk(seen))
    other = PpoNetworks(3, 2, OPTIONS)
    other.load_state_dict(networks.state_dict())
    torch.testing.assert_close(other.actor.act(obs, None), networks.actor.act(obs, None), rtol=0, atol=0)
    assert PpoNetworks(3, 2, PpoOptions(normalize_observations=False)).actor.standardise(obs) is obs


@pytest.mark.parametrize(("kl", "factor"), [(0.02, 2.0), (0.014, 1.0), (0.01, 1.0), (0.007, 1.0), (0.006, 0.5)])
def test_the_penalty_comes_near_its_target(kl: float, factor: float) -> None:
    update = PpoUpdate(_networks(), OPTIONS)
    update.adapt(kl)
    assert update.kl_coefficient.item() == factor * OPTIONS.kl_coefficient


def test_a_fresh_critic_remembers_nothing() -> None:
    networks = _networks()
    update, rows = PpoUpdate(networks, OPTIONS), _rows(networks, 60)
    update(rows, clip=CLIP)
    before, actor = copy.deepcopy(networks.critic.state_dict()), copy.deepcopy(networks.actor.state_dict())
    update.reset_critic()
    weights = [name for name in before if name.endswith("weight")]
    assert all(not torch.equal(before[name], networks.critic.state_dict()[name]) for name in weights)
    for name, value in networks.actor.state_dict().items():
        assert torch.equal(value, actor[name])
    known = update.optimizers["all"].state
    assert all(parameter not in known for parameter in networks.critic.parameters())
    assert all(parameter in known for parameter in networks.actor.parameters())
    update(rows, clip=CLIP)
    assert all(known[parameter]["step"] == 1 for parameter in networks.critic.parameters())

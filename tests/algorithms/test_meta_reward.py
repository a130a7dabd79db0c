"""MRN's outer gradient against finite differences, in double precision."""

import copy

import pytest
import torch
from torch import Tensor, nn

from rayrlhf.algorithms.meta_reward import FirstSteps, outer_gradients
from rayrlhf.config import RewardOptions, SacOptions
from rayrlhf.policies import Batch, SacNetworks
from rayrlhf.rewards import MLPReward

OBS, ACTION, ROWS, LABELS = 4, 2, 16, 6
SAC = SacOptions(hidden=(8, 8), critic_hidden=(8,), layer_norm=True)
GAMMA, LR, WEIGHT = 0.9, 0.05, 0.1


def _data() -> tuple[Batch, Tensor, FirstSteps]:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    terminated = (torch.rand(ROWS) < 0.3).double()
    batch = Batch(drawn(ROWS, OBS), drawn(ROWS, ACTION).tanh(), drawn(ROWS), drawn(ROWS, OBS), terminated)
    target = torch.tensor([0.0, 1.0, 0.5, 1.0, 0.0, 1.0], dtype=torch.float64)
    return batch, drawn(ROWS, ACTION), FirstSteps(drawn(LABELS, 2, OBS), drawn(LABELS, 2, ACTION).tanh(), target)


def _outer_loss(networks: SacNetworks, reward: nn.Module, batch: Batch, noise: Tensor, labels: FirstSteps) -> float:
    """The paper's two steps, one after the other, on a copy of the critic with plain gradient descent."""
    critic = copy.deepcopy(networks.critic)
    with torch.no_grad():
        action, log_prob = networks.actor.sample(batch.next_obs, noise)
        first, second = networks.target(batch.next_obs, action)
        value = torch.minimum(first, second) - networks.log_alpha.exp() * log_prob
        goal = reward(batch.obs, batch.action) + GAMMA * (1 - batch.terminated) * value
    descent = torch.optim.SGD(critic.parameters(), lr=LR)
    sum(((q - goal) ** 2).mean() for q in critic(batch.obs, batch.action)).backward()
    descent.step()
    loss = 0.0
    with torch.no_grad():
        left = critic(labels.obs[:, 0], labels.action[:, 0])
        right = critic(labels.obs[:, 1], labels.action[:, 1])
        for q_left, q_right in zip(left, right, strict=True):
            p = torch.exp(q_right) / (torch.exp(q_left) + torch.exp(q_right))
            loss += float(-(labels.target * p.log() + (1 - labels.target) * (1 - p).log()).mean())
    return WEIGHT * loss


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    """The critics give float32 to whoever learns from them."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)


def test_the_gradient_is_that_of_both_steps() -> None:
    torch.manual_seed(0)
    networks = SacNetworks(OBS, ACTION, SAC).double()
    reward = MLPReward(OBS, ACTION, RewardOptions(hidden=(8,))).double()
    batch, noise, labels = _data()
    parameters = list(reward.parameters())
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    gradients, loss = outer_gradients(
        networks, reward, parameters, batch, noise, labels, gamma=GAMMA, lr=LR, weight=WEIGHT
    )
    torch.testing.assert_close(float(loss), _outer_loss(networks, reward, batch, noise, labels), rtol=1e-9, atol=0.0)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-5
    step = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for place in range(parameter.numel()):
            found = []
            for sign in (1, -1):
                parameter.data.view(-1)[place] += sign * step
                found.append(_outer_loss(networks, reward, batch, noise, labels))
                parameter.data.view(-1)[place] -= sign * step
            slope = (found[0] - found[1]) / (2 * step)
            assert float(gradient.view(-1)[place]) == pytest.approx(slope, rel=1e-4, abs=1e-9)
    for name, value in networks.state_dict().items():
        assert torch.equal(value, before[name]), "the critic's own step is another matter"
        assert networks.get_parameter(name).grad is None

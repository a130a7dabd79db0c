"""The actor's density and the critics' reset."""

import numpy as np
import pytest
import torch
from scipy import stats

from rayrlhf.config import SacOptions
from rayrlhf.policies import SacNetworks, SquashedActor

OPTIONS = SacOptions(hidden=(16, 16))


def _actor() -> SquashedActor:
    torch.manual_seed(0)
    return SquashedActor(5, 2, OPTIONS)


def test_log_probability_is_that_of_a_squashed_gaussian() -> None:
    """Log p(tanh u) = log N(u) - sum log(1 - tanh(u)^2), with SciPy's normal density in double precision."""
    actor = _actor()
    obs, noise = torch.randn(64, 5), torch.randn(64, 2)
    action, log_prob = actor.sample(obs, noise)
    mean, log_std = (part.detach().double().numpy() for part in actor(obs))
    unsquashed = mean + noise.double().numpy() * np.exp(log_std)
    expected = stats.norm.logpdf(unsquashed, mean, np.exp(log_std)) - np.log1p(-(np.tanh(unsquashed) ** 2))
    np.testing.assert_allclose(log_prob.detach().numpy(), expected.sum(axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(action.detach().numpy(), np.tanh(unsquashed), atol=1e-5)


def test_density_integrates_to_one() -> None:
    """A Riemann sum over the action space of a one-dimensional actor."""
    actor = SquashedActor(3, 1, OPTIONS)
    obs = torch.randn(1, 3)
    mean, log_std = actor(obs)
    unsquashed = torch.linspace(-12, 12, 20_001)
    noise = ((unsquashed - mean[0, 0]) / log_std[0, 0].exp()).unsqueeze(1)
    action, log_prob = actor.sample(obs.expand(len(noise), -1), noise)
    mass = torch.trapezoid(log_prob.exp(), action[:, 0])
    assert abs(float(mass.detach()) - 1) < 1e-3


def test_deterministic_action_is_the_mean_squashed() -> None:
    actor = _actor()
    obs = torch.randn(8, 5)
    torch.testing.assert_close(actor.act(obs, None), torch.tanh(actor(obs)[0]))


def test_standard_deviation_stays_between_its_bounds() -> None:
    _, log_std = _actor()(1e4 * torch.randn(100, 5))
    assert log_std.min() >= OPTIONS.log_std_min and log_std.max() <= OPTIONS.log_std_max


def test_weights_are_orthogonal_and_biases_zero() -> None:
    first = _actor().trunk[0]
    weight = first.weight.detach()
    torch.testing.assert_close(weight.T @ weight, torch.eye(5), atol=1e-5, rtol=0)
    assert not first.bias.any()


def test_critic_reset_changes_the_critic_and_makes_the_target_equal() -> None:
    nets = SacNetworks(5, 2, OPTIONS)
    before = {name: value.clone() for name, value in nets.state_dict().items()}
    nets.reset_critic()
    after = nets.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed and all(name.split(".")[0] in ("critic", "target") for name in changed)
    for name, value in nets.critic.state_dict().items():
        torch.testing.assert_close(nets.target.state_dict()[name], value, rtol=0, atol=0)


def test_a_critic_of_residual_blocks_is_bros() -> None:
    """Blocks are x + LN(W2 relu(LN(W1 x))), after a normalised layer (section 3); the actor has another shape."""
    torch.manual_seed(0)
    networks = SacNetworks(5, 2, SacOptions(hidden=(16,), critic_hidden=(8,), critic_blocks=2))
    obs, action = torch.randn(7, 5), torch.randn(7, 2)
    layers = list(networks.critic.first)
    norm = torch.nn.functional.layer_norm
    x = torch.relu(norm(layers[0](torch.cat([obs, action], -1)), (8,)))
    for block in layers[3:5]:
        first, _, _, second, _ = block.layers
        x = x + norm(second(torch.relu(norm(first(x), (8,)))), (8,))
    torch.testing.assert_close(networks.critic(obs, action)[0], layers[5](x)[:, 0])
    assert networks.actor.trunk[0].out_features == 16
    assert len(layers) == 6


@pytest.mark.parametrize("layer_norm", [False, True])
def test_critics_are_normalised_where_asked_and_the_actor_never(layer_norm: bool) -> None:
    """Each hidden layer before its nonlinearity: written out, with the layers' own weights."""
    networks = SacNetworks(5, 2, SacOptions(hidden=(16, 8), layer_norm=layer_norm))
    obs, action = torch.randn(7, 5), torch.randn(7, 2)
    *hidden, last = (layer for layer in networks.critic.second if isinstance(layer, torch.nn.Linear))
    x = torch.cat([obs, action], -1)
    for layer in hidden:
        x = layer(x)
        x = torch.relu(torch.nn.functional.layer_norm(x, x.shape[-1:]) if layer_norm else x)
    torch.testing.assert_close(networks.critic(obs, action)[1], last(x)[:, 0])
    assert not any(isinstance(layer, torch.nn.LayerNorm) for layer in networks.actor.modules())


def test_a_reset_leaves_nothing() -> None:
    torch.manual_seed(0)
    networks = SacNetworks(5, 2, OPTIONS)
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    networks.log_alpha.data += 1
    networks.reset()
    after = networks.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before if name.endswith("weight"))
    assert torch.equal(after["log_alpha"], before["log_alpha"])
    for name, value in networks.critic.state_dict().items():
        assert torch.equal(value, networks.target.state_dict()[name])

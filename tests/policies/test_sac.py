"""SAC's update against the paper's equations, written slowly with autograd and textbook Adam."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rayrlhf.config import SacOptions
from rayrlhf.policies import Batch, SacNetworks, SacUpdate


def _batch(size: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        obs=torch.randn(size, 6, generator=generator),
        action=torch.rand(size, 3, generator=generator) * 2 - 1,
        reward=torch.randn(size, generator=generator),
        next_obs=torch.randn(size, 6, generator=generator),
        terminated=(torch.rand(size, generator=generator) < 0.3).float(),
    )


def _double(batch: Batch) -> Batch:
    return Batch(**{name: column.double() for name, column in vars(batch).items() if column is not None})


def _textbook_adam(parameters: list[Tensor], gradients: list[Tensor], lr: float) -> None:
    """The first step of Adam from zero moments: m = g, v = g^2 after the bias corrections."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.data -= lr * gradient / (gradient.abs() + 1e-8)


def _slow_update(nets: SacNetworks, options: SacOptions, batch: Batch, next_noise: Tensor, noise: Tensor) -> None:
    """Haarnoja et al. 2018 (1812.05905), equations 5 to 10 and 18, one after another."""
    alpha = nets.log_alpha.exp().detach()
    next_action, next_log_prob = nets.actor.sample(batch.next_obs, next_noise)
    q1, q2 = nets.target(batch.next_obs, next_action)
    soft_value = torch.min(q1, q2) - alpha * next_log_prob
    discount = options.gamma if batch.discount is None else batch.discount
    goal = (batch.reward + discount * (1 - batch.terminated) * soft_value).detach()
    q1, q2 = nets.critic(batch.obs, batch.action)
    critic_loss = ((q1 - goal) ** 2).mean() + ((q2 - goal) ** 2).mean()
    critic = list(nets.critic.parameters())
    _textbook_adam(critic, list(torch.autograd.grad(critic_loss, critic)), options.critic_lr)

    action, log_prob = nets.actor.sample(batch.obs, noise)
    actor_loss = (alpha * log_prob - torch.min(*nets.critic(batch.obs, action))).mean()
    actor = list(nets.actor.parameters())
    gradients = list(torch.autograd.grad(actor_loss, actor))
    wanted = -3.0 if options.target_entropy is None else options.target_entropy
    alpha_loss = (nets.log_alpha.exp() * (-log_prob - wanted).detach()).mean()
    (alpha_gradient,) = torch.autograd.grad(alpha_loss, [nets.log_alpha])
    _textbook_adam(actor, gradients, options.actor_lr)
    _textbook_adam([nets.log_alpha], [alpha_gradient], options.alpha_lr)
    for slow, fast in zip(nets.target.parameters(), nets.critic.parameters(), strict=True):
        slow.data = (1 - options.tau) * slow.data + options.tau * fast.data


@pytest.mark.parametrize(
    "choice", [{}, {"layer_norm": True}, {"target_entropy": 9.0}, {"n_step": 3}]
)  # 9: the other way
def test_one_update_is_the_papers(choice: dict[str, Any]) -> None:
    options = SacOptions(hidden=(32, 32), actor_lr=1e-3, critic_lr=2e-3, alpha_lr=3e-3, tau=0.1, **choice)
    torch.manual_seed(0)
    nets = SacNetworks(6, 3, options).double()
    expected = copy.deepcopy(nets)
    batch = _double(_batch(64))
    if "n_step" in choice:  # then the replay says how far the next value is away
        batch = replace(batch, discount=torch.rand(64).double())
    next_noise, noise = torch.randn(64, 3).double(), torch.randn(64, 3).double()
    SacUpdate(nets, options)(batch, next_noise, noise, move_target=True)
    _slow_update(expected, options, batch, next_noise, noise)
    for (name, ours), theirs in zip(nets.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_target_stands_still_unless_it_is_moved() -> None:
    options = SacOptions(hidden=(8,))
    nets = SacNetworks(6, 3, options)
    before = copy.deepcopy(nets.target.state_dict())
    SacUpdate(nets, options)(_batch(16), torch.randn(16, 3), torch.randn(16, 3), move_target=False)
    for name, value in nets.target.state_dict().items():
        assert torch.equal(value, before[name])


def test_terminated_transitions_do_not_look_ahead() -> None:
    """With every transition terminated, the successor cannot matter."""
    options = SacOptions(hidden=(8,))
    batch = _batch(16)
    ended = torch.ones(16)
    results = []
    for next_obs in (batch.next_obs, 100 * batch.next_obs):
        torch.manual_seed(0)
        nets = SacNetworks(6, 3, options)
        torch.manual_seed(2)
        noise = torch.randn(16, 3)
        SacUpdate(nets, options)(
            Batch(batch.obs, batch.action, batch.reward, next_obs, ended), noise, noise, move_target=False
        )
        results.append(nets.state_dict())
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_critics_require_gradients_again_after_an_update() -> None:
    options = SacOptions(hidden=(8,))
    nets = SacNetworks(6, 3, options)
    SacUpdate(nets, options)(_batch(16), torch.randn(16, 3), torch.randn(16, 3), move_target=True)
    assert all(parameter.requires_grad for parameter in nets.critic.parameters())
    assert not any(parameter.requires_grad for parameter in nets.target.parameters())


def test_parts_add_up_to_the_whole_batch() -> None:
    options = SacOptions(hidden=(32, 32), actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3)
    torch.manual_seed(0)
    whole = SacNetworks(6, 3, options).double()
    parted = copy.deepcopy(whole)
    one, other = SacUpdate(whole, options), SacUpdate(parted, options, parts=4)
    rows = _batch(32)
    batch = _double(rows)
    noise = torch.randn(5, 2, 32, 3).double()
    for step in range(5):
        found, again = (update(batch, *noise[step], move_target=True) for update in (one, other))
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parameter, parted.get_parameter(name), rtol=1e-7, atol=1e-9, msg=name)
    for name in SacUpdate.MEASURES:
        torch.testing.assert_close(found[name], again[name])
    with pytest.raises(ValueError, match="no 5 equal parts"):
        SacUpdate(whole, options, parts=5)(batch, *noise[0], move_target=True)

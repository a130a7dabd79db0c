"""The perceptron by its formula, and networks from outside the package."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rayrlhf.config import RewardOptions
from rayrlhf.config.classes import imported
from rayrlhf.errors import UserError
from rayrlhf.rewards import RewardEnsemble, RewardScorer, make_network
from rayrlhf.rewards.plan import Plan

USERS = """
import torch
from torch import nn
from rayrlhf.rewards import RewardNetwork

class Attentive(RewardNetwork):
    '''Looks along time, holds a buffer, drops out, and has a parameter that is not trained.'''
    def __init__(self, obs_dim, action_dim, options):
        super().__init__()
        self.embed = nn.Linear(obs_dim + action_dim, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 1))
        self.register_buffer("random", torch.randn(8))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, obs, action):
        x = self.embed(torch.cat([obs, action], -1)) + self.random * self.frozen
        return self.head(x + self.attend(x, x, x)[0]).squeeze(-1)

class Wrong(RewardNetwork):
    def __init__(self, obs_dim, action_dim, options):
        super().__init__()
        self.layer = nn.Linear(obs_dim, 1)

    def forward(self, obs, action):
        return self.layer(obs)

class Unmade(RewardNetwork):
    def __init__(self, obs_dim, action_dim):
        super().__init__()

    def forward(self, obs, action):
        return obs.sum(-1)

class Narrow(Wrong):
    def __init__(self, obs_dim, action_dim, options):
        super().__init__(obs_dim, action_dim, options)
        self.layer = nn.Linear(obs_dim - 1, 1)

Plain = 3
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_rewards.py").write_text(USERS)
    (tmp_path / "users_broken.py").write_text("1 / 0")
    (tmp_path / "users_misspelt.py").write_text("def Net(:")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "users_rewards"
    sys.modules.pop("users_rewards", None)


def test_mlp_is_concatenation_leaky_layers_and_tanh(options: RewardOptions) -> None:
    network = make_network(options, 4, 2)
    obs, action = torch.randn(3, 5, 4), torch.randn(3, 5, 2)
    x = torch.cat([obs, action], -1).double()
    weights = [p.detach().double() for p in network.parameters()]
    for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        x = x @ weight.T + bias
        x = torch.maximum(x, 0.01 * x)
    slow = torch.tanh(x @ weights[4].T + weights[5])[..., 0]
    torch.testing.assert_close(network(obs, action).double(), slow, rtol=1e-5, atol=1e-6)


def test_a_users_network_is_fitted_saved_and_scored(users_module, options, make_labels) -> None:
    options = options.model_copy(
        update={"network": f"{users_module}:Attentive", "lr": 0.01, "epochs": 40, "normalize_inputs": True}
    )
    labels = make_labels(64)
    ensemble = RewardEnsemble(options, 4, 2, seed=1)
    before = ensemble.weights()
    report = ensemble.fit(labels)
    assert report.accuracy.mean() > 0.9
    after = ensemble.weights()
    assert not np.array_equal(before["network/embed.weight"], after["network/embed.weight"])
    np.testing.assert_array_equal(before["network/random"], after["network/random"])
    assert not np.array_equal(after["network/random"][0], after["network/random"][1])
    scorer = RewardScorer(options, 4, 2)
    scorer.load(after)
    obs, action = labels.left.obs[:, 0], labels.left.action[:, 0]
    assert torch.equal(scorer.score(obs, action), ensemble.reward(obs, action))


@pytest.mark.parametrize("own", [False, True])
def test_members_in_threads_give_the_bits_of_one_after_the_other(own: bool, users_module, options, make_labels) -> None:
    network = f"{users_module}:Attentive" if own else "mlp"
    options = options.model_copy(update={"network": network, "normalize_inputs": True, "normalize_rewards": True})
    labels = make_labels(40)
    found = []
    for threads in (1, 3):
        plan = Plan(stacked=False, fit_rows=64, score_rows=64, threads=threads)
        ensemble = RewardEnsemble(options, 4, 2, seed=3, plan=plan)
        report = ensemble.fit(labels)
        logits = ensemble.pair_logits(labels.left, labels.right).numpy()
        found.append({**ensemble.state(), "loss": report.loss, "logits": logits})
    one_after_the_other, at_once = found
    for name, array in one_after_the_other.items():
        np.testing.assert_array_equal(array, at_once[name], err_msg=name)


def test_a_users_network_sees_time(users_module, options, make_segments) -> None:
    options = options.model_copy(update={"network": f"{users_module}:Attentive"})
    segments = make_segments(3)
    ensemble = RewardEnsemble(options, 4, 2, seed=1)
    together = ensemble.member_rewards(segments.obs, segments.action)
    single = ensemble.member_rewards(segments.obs.reshape(-1, 4), segments.action.reshape(-1, 2))
    assert together.shape == (3, 3, 6)
    assert not torch.allclose(together.flatten(), single.flatten())


def test_a_class_within_a_class_is_found() -> None:
    assert imported("reward.network", "torch.nn:Module.forward") is torch.nn.Module.forward
    with pytest.raises(UserError, match=r"'torch\.nn' has no 'Module\.forwart'; did you mean 'forward'"):
        imported("reward.network", "torch.nn:Module.forwart")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("transformer", "'mlp' or a class as 'package.module:Class'"),
        ("no_such_module_here:Net", "cannot be imported"),
        ("users_rewards:Atentive", "did you mean 'Attentive'"),
        ("users_rewards:Plain", "no torch.nn.Module"),
        ("users_rewards:Wrong", r"to \[2, 3, 1\]"),
        ("users_rewards:Unmade", r"fails with obs \[2, 3, 4\]: TypeError: .*takes 3 positional.*--debug shows where"),
        ("users_rewards:Narrow", r"fails with obs \[2, 3, 4\]: RuntimeError: "),
        ("users_broken:Net", "cannot be imported: ZeroDivisionError: .*--debug shows where"),
        ("users_misspelt:Net", "cannot be imported: SyntaxError: .*--debug shows where"),
    ],
)
def test_a_bad_path_is_one_clear_line(users_module, network: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_network(RewardOptions(network=network), 4, 2)
    assert "\n" not in str(caught.value)

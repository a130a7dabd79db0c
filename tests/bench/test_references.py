"""The references are right: they compute what ours computes, so that a ratio compares like with like."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from rayrlhf.bench.reference_loop import RunningStd, SeriesSession, kth_neighbour
from rayrlhf.bench.reference_ppo import PlainPpo, TensorSteps
from rayrlhf.bench.reference_queries import k_center_anew
from rayrlhf.bench.reference_reward import bare_forward, member_networks
from rayrlhf.bench.reference_sac import PlainLoop, PlainSac, TensorReplay
from rayrlhf.bench.reward import fits, made_up_labels
from rayrlhf.config import PpoOptions, RewardOptions, SacOptions
from rayrlhf.exploration import StateEntropy
from rayrlhf.policies import Batch, PpoNetworks, PpoUpdate, SacNetworks, SacUpdate
from rayrlhf.policies.ppo import Rows, advantages
from rayrlhf.queries import k_center
from rayrlhf.rewards import RewardEnsemble, RewardScorer

OBS, ACTION = 6, 2
SAC = SacOptions(hidden=(16, 16), batch_size=32, initial_temperature=0.3, alpha_lr=1e-2)
REWARD = RewardOptions(hidden=(16, 16), members=3, batch_size=8)


def random_replay(rows: int) -> TensorReplay:
    torch.manual_seed(1)
    done = (torch.rand(rows) < 0.2).float()
    columns = torch.randn(rows, OBS), torch.rand(rows, ACTION) * 2 - 1, torch.randn(rows), torch.randn(rows, OBS)
    return TensorReplay(*columns, done)


def flat(networks: Sequence[torch.nn.Module]) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for network in networks for parameter in network.parameters()])


@pytest.mark.parametrize("tuned", [False, True])
def test_the_plain_loop_makes_the_same_updates_as_ours(tuned: bool) -> None:
    torch.manual_seed(0)
    networks = SacNetworks(OBS, ACTION, SAC)
    ours, plain = SacUpdate(networks, SAC), PlainSac(OBS, ACTION, SAC, tuned=tuned)
    plain.actor.load_state_dict(networks.actor.trunk.state_dict())
    for theirs, critic in zip(plain.critics, (networks.critic.first, networks.critic.second), strict=True):
        theirs.load_state_dict(critic.state_dict())
    for target, critic in zip(plain.targets, plain.critics, strict=True):
        target.load_state_dict(critic.state_dict())
    replay = random_replay(200)
    for update in range(1, 6):
        rows, noise = replay.take(torch.randint(200, (SAC.batch_size,))), torch.randn(2, SAC.batch_size, ACTION)
        batch = Batch(rows.obs, rows.action, rows.reward, rows.next_obs, rows.done)
        ours(batch, noise[0], noise[1], move_target=update % SAC.target_update_interval == 0)
        plain.update(rows, noise[0], noise[1])
    torch.testing.assert_close(flat([plain.actor]), flat([networks.actor]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flat(plain.critics), flat([networks.critic]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flat(plain.targets), flat([networks.target]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(plain.log_alpha, networks.log_alpha)
    assert not torch.allclose(plain.log_alpha, torch.tensor(np.log(SAC.initial_temperature), dtype=torch.float32))


def test_the_plain_loop_of_ppo_makes_the_same_updates_as_ours() -> None:
    options = PpoOptions(hidden=(16, 16), batch_size=20, normalize_observations=False)
    torch.manual_seed(0)
    networks = PpoNetworks(OBS, ACTION, options)
    ours, plain = PpoUpdate(networks, options), PlainPpo(OBS, ACTION, options)
    plain.actor.load_state_dict(networks.actor.trunk.state_dict())
    plain.critic.load_state_dict(networks.critic.state_dict())
    obs, last = torch.randn(30, 4, OBS), torch.randn(4, OBS)
    with torch.no_grad():
        action, log_prob = networks.actor.sample(obs.flatten(0, 1), torch.randn(120, ACTION))
        log_prob = log_prob + 0.3 * torch.randn(120)
        value, done = networks.value(obs), (torch.rand(30, 4) < 0.1).float()
        following = torch.cat([value[1:], networks.value(last)[None]])
    reward = torch.randn(30, 4)
    found = advantages(reward, value, following, done, done, gamma=options.gamma, lam=options.gae_lambda)
    steps = TensorSteps(obs, action.view(30, 4, ACTION), log_prob.view(30, 4), reward, done, last)
    for one, other in zip(plain.advantages(steps), (found, found + value), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    rows = Rows(obs.flatten(0, 1), action, log_prob, found.flatten(), (found + value).flatten())
    for start in range(0, 120, 20):
        batch = rows.take(slice(start, start + 20))
        ours(batch, clip=torch.tensor(0.2))
        plain.update(batch.seen, batch.action, batch.log_prob, batch.advantage, batch.goal, 0.2)
    torch.testing.assert_close(flat([plain.actor]), flat([networks.actor.trunk]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flat([plain.critic]), flat([networks.critic]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(plain.log_std, networks.actor.log_std)


def test_the_plain_loop_fits_a_value() -> None:
    """With a reward that ends every episode the value is the reward: its error falls."""
    replay = random_replay(500)
    replay.done.fill_(1.0)
    replay.reward.copy_(replay.obs[:, 0])
    sac = PlainSac(OBS, ACTION, SacOptions(hidden=(64, 64), batch_size=128, critic_lr=3e-3))
    loop, inputs = PlainLoop(sac, replay), torch.cat([replay.obs, replay.action], -1)

    def error() -> float:
        with torch.no_grad():
            return float((sac.critics[0](inputs).squeeze(-1) - replay.reward).square().mean())

    before = error()
    loop.learn(200)
    assert error() < 0.1 * before


def test_broadcast_neighbours_are_ours() -> None:
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(1203, 5, generator=generator)  # more than one pass of 500
    ours = StateEntropy(5, 5, capacity=2000)
    ours.add(states)
    index = torch.tensor([0, 7, 700, 1202])
    torch.testing.assert_close(kth_neighbour(states[index], states, 5), ours.distance(index))


def test_running_std_is_that_of_all_values() -> None:
    values = torch.randn(300) * 3 + 5
    running = RunningStd()
    for part in torch.split(values, 70):
        scaled = running.standardised(part)
    torch.testing.assert_close(scaled, part / values.std(correction=0))


def test_k_center_anew_picks_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    candidates, centres = torch.randn(60, 8, generator=generator), torch.randn(20, 8, generator=generator)
    assert k_center_anew(candidates, centres, 25) == k_center(candidates, centres, 25).tolist()


@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_bare_forward_is_the_score(chunk: int) -> None:
    weights = RewardEnsemble(REWARD, OBS, ACTION, seed=4).weights()
    scorer = RewardScorer(REWARD, OBS, ACTION)
    scorer.load(weights)
    obs, action = torch.randn(50, OBS), torch.rand(50, ACTION)
    bare = bare_forward(member_networks(REWARD, weights), torch.cat([obs, action], dim=1), chunk)
    torch.testing.assert_close(bare.mean(0), scorer.score(obs, action))


def test_the_three_fits_have_one_loss_curve() -> None:
    curves: dict[str, list[list[float]]] = {"ours": [], "loop": [], "stacked": []}
    sides = fits(REWARD, made_up_labels(21, 5), curves, epochs=4, device="cpu")
    for side in sides.values():
        assert side() == 4 * 21
    assert np.shape(curves["ours"]) == (4, 3)
    np.testing.assert_allclose(curves["loop"], curves["ours"], rtol=1e-4)
    np.testing.assert_allclose(curves["stacked"], curves["ours"], rtol=1e-4)
    assert np.mean(curves["ours"][-1]) < np.mean(curves["ours"][0])


def test_the_series_session_learns_and_relabels_every_row() -> None:
    rng = np.random.default_rng(5)
    inputs = rng.standard_normal((6, 40, OBS + ACTION)).astype(np.float32)
    episodes = [np.concatenate([episode, episode[:, :1]], axis=1) for episode in inputs]  # the reward is obs[0]
    options = RewardOptions(hidden=(32, 32), epochs=30, lr=3e-3)
    weights = RewardEnsemble(options, OBS, ACTION, seed=0).weights()
    rows = inputs.reshape(-1, OBS + ACTION)[:203]  # 200 a pass, and three
    session = SeriesSession(options, weights, rows, episodes, length=10)
    assert session.hold(60, 2) == 1.0
    assert np.corrcoef(session.rewards, rows[:, 0])[0, 1] > 0.7
    assert (session.rewards[200:] != 0).all()

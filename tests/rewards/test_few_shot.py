"""Fits that begin from few-shot weights: by the learnt rates, or as the init baseline."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rayrlhf.config.schema import RewardOptions
from rayrlhf.preferences.answers import Labels
from rayrlhf.rewards import RewardEnsemble, make_network
from rayrlhf.rewards.members import Arrays, member_networks

MakeLabels = Callable[..., Labels]
OPTIONS = RewardOptions(members=3, hidden=(8, 8), batch_size=64, epochs=1, normalize_inputs=True)


def widths(labels: Labels) -> tuple[int, int]:
    return labels.left.obs.shape[2], labels.left.action.shape[2]


def meta_weights(labels: Labels, options: RewardOptions = OPTIONS) -> Arrays:
    """Weights of another seed, standardised by other moments, with a rate for each tensor."""
    obs_dim, action_dim = widths(labels)
    arrays = RewardEnsemble(options, obs_dim, action_dim, seed=7).weights()
    arrays["inputs/mean"] = np.linspace(-1, 1, obs_dim, dtype=np.float32)
    arrays["inputs/std"] = np.linspace(0.5, 2, obs_dim, dtype=np.float32)
    names = [name for name, _ in make_network(options, obs_dim, action_dim).named_parameters()]
    return arrays | {f"rates/{name}": np.float32(0.02 * (1 + i)) for i, name in enumerate(names)}


def begun(options: RewardOptions, labels: Labels, members: tuple[int, ...] | None = None) -> RewardEnsemble:
    ensemble = RewardEnsemble(options, *widths(labels), seed=0, members=members)
    ensemble.begin_from(meta_weights(labels, options))
    return ensemble


def descended(labels: Labels, member: int) -> dict[str, torch.Tensor]:
    """One step of gradient descent on all labels, by autograd in double precision."""
    meta = meta_weights(labels)
    network = member_networks(OPTIONS, *widths(labels), seed=7)[member].double()
    mean, std = (torch.from_numpy(meta[f"inputs/{name}"]).double() for name in ("mean", "std"))

    def total(side: object) -> torch.Tensor:
        obs = (torch.from_numpy(side.obs).double() - mean) / std  # type: ignore[attr-defined]
        action = torch.from_numpy(side.action).double()  # type: ignore[attr-defined]
        return torch.as_tensor(network(obs, action)).sum(1)

    logits = total(labels.right) - total(labels.left)
    target = torch.from_numpy(labels.target).double()
    loss = -(target * torch.nn.functional.logsigmoid(logits) + (1 - target) * torch.nn.functional.logsigmoid(-logits))
    named = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss.mean(), list(named.values()))
    return {
        name: value.detach() - float(meta[f"rates/{name}"]) * gradient
        for (name, value), gradient in zip(named.items(), gradients, strict=True)
    }


def test_a_fit_goes_down_the_gradient_with_each_tensors_own_rate(make_labels: MakeLabels) -> None:
    labels = make_labels(40)
    ensemble = begun(OPTIONS, labels)
    ensemble.fit(labels)
    weights = ensemble.weights()
    for member in range(3):
        for name, value in descended(labels, member).items():
            np.testing.assert_allclose(weights[f"network/{name}"][member], value.numpy(), rtol=1e-4, atol=1e-6)


def test_each_fit_begins_at_the_weights_and_inputs_are_standardised_as_there(make_labels: MakeLabels) -> None:
    labels = make_labels(40)
    ensemble, meta = begun(OPTIONS, labels), meta_weights(labels)
    ensemble.fit(labels)
    once = ensemble.weights()
    ensemble.restart()
    for name, value in ensemble.weights().items():
        np.testing.assert_array_equal(value, meta[name])
    ensemble.fit(labels)
    for name, value in ensemble.weights().items():  # of other shuffles: sums of the same terms in another order
        np.testing.assert_allclose(value, once[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(once["inputs/mean"], meta["inputs/mean"])


def test_the_init_baseline_takes_the_weights_and_fits_as_ever(make_labels: MakeLabels) -> None:
    labels, options = make_labels(40), OPTIONS.model_copy(update={"adaptation": "adam"})
    ensemble = begun(options, labels)
    before = ensemble.weights()
    ensemble.fit(labels)
    steps = ensemble.state()["adam/step"]
    assert set(steps.tolist()) == {1.0}
    moved = np.abs(ensemble.weights()["network/layers.0.bias"] - before["network/layers.0.bias"])
    assert moved.max() == pytest.approx(options.lr, rel=1e-2), "Adam's first step is as long as its rate"


def test_members_in_several_processes_come_to_the_same(make_labels: MakeLabels) -> None:
    labels = make_labels(40)
    whole = begun(OPTIONS, labels)
    whole.fit_epoch(labels)
    for members in ((0,), (1, 2)):
        part = begun(OPTIONS, labels, members)
        part.fit_epoch(labels)
        for name, value in part.weights().items():
            if name.startswith("network/"):
                np.testing.assert_array_equal(value, whole.weights()[name][list(members)])


def test_a_saved_ensemble_goes_on_bit_for_bit(make_labels: MakeLabels) -> None:
    labels, options = make_labels(100), OPTIONS.model_copy(update={"batch_size": 16, "epochs": 3})
    ensemble = begun(options, labels)
    ensemble.fit(labels)
    again = begun(options, labels)
    again.load_state(ensemble.state())
    for one in (ensemble, again):
        one.restart()
        one.fit(labels)
    for name, value in again.state().items():
        np.testing.assert_array_equal(value, ensemble.state()[name])


def test_others_weights_are_refused(make_labels: MakeLabels) -> None:
    labels = make_labels(10)
    ensemble = RewardEnsemble(OPTIONS.model_copy(update={"hidden": (4,)}), *widths(labels), seed=0)
    with pytest.raises(ValueError, match="another network's"):
        ensemble.begin_from(meta_weights(labels))

"""What of Ray RLlib's inside is relied on, by name: a version that moves it fails here first, and says what."""

import inspect

import pytest
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from support import Make, changed

from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.config.schema import RunConfig
from rayrlhf.errors import UserError


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (Algorithm, {"_create_local_replay_buffer_if_necessary", "restore_env_runners", "training_step", "cleanup"}),
        (EnvRunnerGroup, {"foreach_env_runner_async", "fetch_ready_async_reqs", "probe_unhealthy_env_runners"}),
        (FaultTolerantActorManager, {"_filter_calls_by_tag", "clear"}),
        (TorchLearner, {"_make_modules_ddp_if_necessary", "register_optimizer", "configure_optimizers_for_module"}),
    ],
)
def test_methods_that_are_called_or_replaced_are_there(owner: type, names: set[str]) -> None:
    assert not {name for name in names if not callable(getattr(owner, name, None))}


def test_results_are_asked_for_by_reference_and_by_tag() -> None:
    wanted = {"tags", "timeout_seconds", "return_obj_refs"}
    assert wanted <= inspect.signature(EnvRunnerGroup.fetch_ready_async_reqs).parameters.keys()
    wanted = {"tag", "kwargs", "remote_worker_ids"}
    assert wanted <= inspect.signature(EnvRunnerGroup.foreach_env_runner_async).parameters.keys()


@pytest.mark.usefixtures("ray_session")
def test_a_local_learner_and_the_calls_on_their_way_can_be_reached(small_run: RunConfig, make: Make) -> None:
    algorithm = make(changed(small_run, mode="oracle"))
    assert isinstance(algorithm.learner_group, LearnerGroup) and algorithm.learner_group.is_local
    assert algorithm.learner_group._learner.update_step is not None
    algorithm.request_fragments()
    calls, runners, tags = algorithm.env_runner_group._worker_manager._filter_calls_by_tag("report")
    assert (len(calls), runners, tags) == (1, [1], ["report"])


def test_an_option_that_would_be_ignored_is_refused(small_run: RunConfig) -> None:
    options = Pebble.get_default_config().of(changed(small_run, mode="oracle"))
    options.validate()
    options.torch_skip_nan_gradients = True
    with pytest.raises(UserError, match="torch_skip_nan_gradients"):
        options.validate()

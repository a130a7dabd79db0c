"""Bad choices of environments are one clear line."""

import subprocess
import sys

import pytest

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs import check_env, make_env, task_names
from rayrlhf.errors import UserError


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"task": "drawer-opn"}, "did you mean 'drawer-open'"),
        ({"task": "drawer-open-v2"}, "did you mean 'drawer-open'"),
        ({"task": "xyzzy"}, r"there are 50, such as assembly, .*, "),
        ({"suite": "toy", "task": "pont"}, "did you mean 'point'"),
        ({"suite": "toy", "task": "point", "backend": "envpool"}, "env.backend python"),
        ({"suite": "toy", "task": "point", "random_start": False}, "MetaWorld's alone"),
        ({"suite": "gymnasium", "task": "Hopper-v5", "reward_version": "v1"}, "MetaWorld's alone"),
    ],
)
def test_bad_choices_are_user_errors(choice: dict[str, object], words: str) -> None:
    options = EnvOptions(**choice)
    with pytest.raises(UserError, match=words) as caught:
        check_env(options)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=words):
        make_env(options, 1, seed=0)


def test_the_check_and_the_environment_agree() -> None:
    for options in (
        EnvOptions(task="reach"),
        EnvOptions(suite="gymnasium", task="Hopper-v5", horizon=None),
        EnvOptions(suite="toy", task="point"),
    ):
        assert check_env(options) == make_env(options, 2, seed=0).spec


def test_indices_must_match_the_number() -> None:
    with pytest.raises(ValueError, match="indices"):
        make_env(EnvOptions(suite="toy", task="point"), 2, seed=0, indices=[1])


def test_unknown_suite_is_a_user_error() -> None:
    with pytest.raises(UserError, match="atari"):
        task_names("atari")


def test_a_toy_run_imports_no_simulator() -> None:
    program = (
        "import sys; from rayrlhf.config.schema import EnvOptions; from rayrlhf.envs import make_env; "
        "make_env(EnvOptions(suite='toy', task='point'), 1, seed=0); "
        "print([name for name in ('mujoco', 'metaworld', 'envpool', 'torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

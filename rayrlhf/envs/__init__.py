"""Environments: every simulator behind one vector interface."""

from rayrlhf.envs.broken import EnvironmentBroken
from rayrlhf.envs.interface import EnvSpec, Step, VectorEnv
from rayrlhf.envs.make import check_env, make_env, task_names

__all__ = ["EnvSpec", "EnvironmentBroken", "Step", "VectorEnv", "check_env", "make_env", "task_names"]

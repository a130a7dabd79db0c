"""Picks the GL library before any test module imports MuJoCo."""

from rayrlhf.envs.gl import choose_backend

choose_backend()

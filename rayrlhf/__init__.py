"""Preference-based reinforcement learning for robots as one Ray program."""

__version__ = "0.1.0"

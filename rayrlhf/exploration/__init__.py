"""What drives the policy before the first question."""

from rayrlhf.exploration.state_entropy import StateEntropy

__all__ = ["StateEntropy"]

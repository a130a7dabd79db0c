"""The algorithm of a run."""

from rayrlhf.algorithms.config import RunAlgorithmConfig
from rayrlhf.algorithms.loop import PreferenceAlgorithm
from rayrlhf.algorithms.pebble import Pebble
from rayrlhf.algorithms.prefppo import PrefPPO
from rayrlhf.config import RunConfig

ALGORITHMS: dict[str, type[PreferenceAlgorithm]] = {"pebble": Pebble, "prefppo": PrefPPO}


def algorithm_config(run: RunConfig) -> RunAlgorithmConfig:
    """RLlib's options for the algorithm that `run` names; `of` takes over the rest."""
    return ALGORITHMS[run.algorithm].get_default_config()

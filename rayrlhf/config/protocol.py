"""How a run's environment was used, in words."""

from rayrlhf.config.schema import RunConfig

WITHOUT_SUCCESS = ("dmc", "gymnasium")
"""Suites whose tasks say nothing of success, but for Gymnasium's where `info` has it."""


def protocol(config: RunConfig) -> str:
    """What must stand beside every number: how the environment was used, and who answered."""
    env = config.env
    words: list[str] = [env.suite]
    if env.suite == "metaworld":
        words = [
            "MetaWorld v3",
            f"goal {'hidden' if env.goal_hidden else 'shown'}",
            f"{'random' if env.random_start else 'fixed'} start",
            f"reward {env.reward_version}",
            "success at any step",
        ]
    if env.horizon is not None:
        words.append(f"{env.horizon} steps an episode")
    if env.action_repeat > 1:
        words.append(f"action repeat {env.action_repeat}")
    return ", ".join([*words, taught_by(config), f"{env.backend} backend"])


def taught_by(config: RunConfig) -> str:
    """What says what is good."""
    if config.mode == "oracle":
        return "true reward"
    return f"fixed reward model {config.reward.from_}" if config.reward.from_ else f"{config.teacher.title} teacher"

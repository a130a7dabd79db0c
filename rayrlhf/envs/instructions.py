"""What the robot is to do, in a sentence: for people who judge how well it does, and for policies that are told."""

from dataclasses import dataclass

from rayrlhf.config.schema import EnvOptions
from rayrlhf.envs.draws import Draws
from rayrlhf.preferences.fragments import Floats

METAWORLD = {
    "assembly": "Pick up the ring by its handle and put it over the peg.",
    "basketball": "Pick up the ball and drop it into the basket.",
    "bin-picking": "Take the cube out of one bin and put it into the other.",
    "box-close": "Take the lid and put it on the box.",
    "button-press": "Push the button in.",
    "button-press-topdown": "Press the button down from above.",
    "button-press-topdown-wall": "Reach over the wall and press the button down from above.",
    "button-press-wall": "Reach around the wall and push the button in.",
    "coffee-button": "Push the button of the coffee machine.",
    "coffee-pull": "Pull the mug away from the coffee machine, to the goal.",
    "coffee-push": "Push the mug under the coffee machine.",
    "dial-turn": "Turn the dial.",
    "disassemble": "Lift the ring off the peg.",
    "door-close": "Close the door.",
    "door-lock": "Lock the door by turning its lock.",
    "door-open": "Open the door.",
    "door-unlock": "Unlock the door by turning its lock.",
    "drawer-close": "Push the drawer shut.",
    "drawer-open": "Pull the drawer open.",
    "faucet-close": "Turn the faucet's handle to close it.",
    "faucet-open": "Turn the faucet's handle to open it.",
    "hammer": "Pick up the hammer and drive the nail in.",
    "hand-insert": "Put the block into the hole.",
    "handle-press": "Press the handle down.",
    "handle-press-side": "Press the handle at the side down.",
    "handle-pull": "Pull the handle up.",
    "handle-pull-side": "Pull the handle at the side up.",
    "lever-pull": "Pull the lever up.",
    "peg-insert-side": "Pick up the peg and put it into the hole in the box's side.",
    "peg-unplug-side": "Pull the peg out of the hole in the box's side.",
    "pick-out-of-hole": "Lift the block out of the hole and bring it to the goal.",
    "pick-place": "Pick up the block and bring it to the goal.",
    "pick-place-wall": "Pick up the block and bring it over the wall to the goal.",
    "plate-slide": "Slide the plate forward into the net.",
    "plate-slide-back": "Slide the plate back out of the net.",
    "plate-slide-back-side": "Slide the plate sideways out of the net.",
    "plate-slide-side": "Slide the plate sideways into the net.",
    "push": "Push the block to the goal.",
    "push-back": "Pull the block back to the goal.",
    "push-wall": "Push the block around the wall to the goal.",
    "reach": "Bring the gripper to the goal.",
    "reach-wall": "Bring the gripper around the wall to the goal.",
    "shelf-place": "Pick up the block and put it on the shelf.",
    "soccer": "Push the ball into the net.",
    "stick-pull": "Take the stick and pull the box with it.",
    "stick-push": "Take the stick and push the box with it.",
    "sweep": "Sweep the block off the table.",
    "sweep-into": "Sweep the block into the hole.",
    "window-close": "Push the window shut.",
    "window-open": "Push the window open.",
}
_OTHERS = {
    ("toy", "point"): "Bring the point to the goal.",
    ("toy", "point-away"): "Keep the point far away from the goal.",
    ("toy", "point-terminating"): "Bring the point to the goal, and stay within the square.",
    ("gymnasium", "HalfCheetah-v5"): "Run forward, as fast as you can.",
    ("gymnasium", "Hopper-v5"): "Hop forward, and do not fall.",
    ("gymnasium", "Walker2d-v5"): "Walk forward, and do not fall.",
    ("gymnasium", "Ant-v5"): "Walk forward.",
    ("dmc", "cheetah-run"): "Run forward, as fast as you can.",
    ("dmc", "walker-walk"): "Walk forward, upright.",
    ("dmc", "quadruped-walk"): "Walk forward.",
}


def sentence_of(suite: str, task: str) -> str:
    """A task in a sentence; for one that nobody wrote one for, its name."""
    plain = task.removesuffix("-v3")
    if suite == "metaworld" and plain in METAWORLD:
        return METAWORLD[plain]
    return _OTHERS.get((suite, task), f"The task: {task.replace('-', ' ')}.")


def sentences_of(options: EnvOptions) -> str:
    """A run's tasks in a sentence each."""
    return " / ".join(sentence_of(options.suite, task) for task in options.tasks)


@dataclass(frozen=True, eq=False)
class Instructions:
    """What is said of each of `K` tasks, in `W` wordings, and as numbers.

    sentences: `[K][W]`   vectors: `[K, W, D]`
    """

    sentences: tuple[tuple[str, ...], ...]
    vectors: Floats

    def __post_init__(self) -> None:
        wordings = {len(own) for own in self.sentences}
        if self.vectors.ndim != 3 or self.vectors.shape[0] != len(self.sentences) or wordings != {self.wordings}:
            raise ValueError(f"vectors {self.vectors.shape} of {len(self.sentences)} tasks in {wordings} wordings")

    @property
    def wordings(self) -> int:
        """Ways to say each."""
        return int(self.vectors.shape[1])

    @property
    def width(self) -> int:
        """Numbers that stand for a sentence."""
        return int(self.vectors.shape[2])

    def of(self, draws: Draws, i: int, episode: int) -> tuple[str, Floats]:
        """The sentence, and its vector `[D]`, of an episode of the `i`-th environment."""
        task, wording = draws.task_of(i, episode), draws.wording_of(i, episode, self.wordings)
        return self.sentences[task][wording], self.vectors[task, wording]

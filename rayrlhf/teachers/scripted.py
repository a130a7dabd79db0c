"""B-Pref's scripted teachers, which answer from the true reward (Lee et al. 2021, arXiv 2111.03026, section 3).

Where the paper is silent this follows its code (`get_label`): an exact tie of a rational teacher goes left, and a
threshold that is not positive (no episode yet, or negative returns) neither skips nor calls anything equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rayrlhf.config import TeacherOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Choice
from rayrlhf.preferences.fragments import Bools, Floats
from rayrlhf.preferences.segments import Queries
from rayrlhf.seeding import generator
from rayrlhf.teachers.immediate import ImmediateTeacher
from rayrlhf.teachers.mistakes import either, misjudged, slips, tiredness

Doubles = NDArray[np.float64]
FIRST_SESSION = 0


@dataclass(frozen=True)
class Parameters:
    """How a scripted teacher departs from the oracle.

    beta:    rationality; above 0 it samples from the Bradley-Terry probability, else it takes the larger sum
    gamma:   weight of a step against the next one; below 1 the teacher is myopic: the last steps count most
    mistake: probability of the opposite answer
    skip:    skips where neither segment's sum exceeds so much of the typical return
    equal:   equal where the sums differ by less than so much of the typical return
    blur:    misjudges each sum by so much of the typical return; not B-Pref's, nor are the following
    fatigue: added to `mistake` with each question of a session
    session_fatigue: added to `mistake` with each session
    """

    beta: float = -1.0
    gamma: float = 1.0
    mistake: float = 0.0
    skip: float = 0.0
    equal: float = 0.0
    blur: float = 0.0
    fatigue: float = 0.0
    session_fatigue: float = 0.0


PRESETS: dict[str, Parameters] = {
    "oracle": Parameters(),
    "mistake": Parameters(mistake=0.1),
    "noisy": Parameters(beta=1.0),
    "skip": Parameters(skip=0.1),
    "myopic": Parameters(gamma=0.9),
    "equal": Parameters(equal=0.1),
}
"""The six teachers of the paper's table 1."""


def thresholds(typical_return: float, parameters: Parameters, *, repeated: bool = False) -> tuple[float, float]:
    """Skip and equal thresholds in units of a segment's sum; `repeated` multiplies by eps a second time."""
    power = 2 if repeated else 1
    return typical_return * parameters.skip**power, typical_return * parameters.equal**power


def discounted_sum(reward: Floats, gamma: float) -> Doubles:
    """Sums `[N]` of rewards `[N, T]` in which the last step has weight 1 and each earlier one `gamma` of the next.

    Row by row, not as a matrix product, whose last bits would depend on how many queries are asked together.
    """
    weight = gamma ** np.arange(reward.shape[1] - 1, -1, -1, dtype=np.float64)
    total: Doubles = (reward.astype(np.float64, order="C") * weight).sum(axis=1)
    return total


def prefers_right(difference: Doubles, beta: float, uniform: Doubles) -> Bools:
    """Whether the teacher takes the right one, `[N]`, before mistakes; `difference` `[N]` is right minus left.

    `uniform` `[N]` in [0, 1) decides where the teacher samples.
    """
    if beta <= 0:
        return difference > 0
    # The logistic function as a tangent, which does not overflow.
    return uniform < 0.5 * (1.0 + np.tanh(0.5 * beta * difference))


def judge(
    left: Floats,
    right: Floats,
    parameters: Parameters,
    typical_return: float,
    uniform: Doubles,
    tired: Doubles,
    *,
    repeated: bool,
) -> list[Choice]:
    """The teacher's choices for pairs of true rewards `[N, T]`; `uniform` `[N, 2]` in [0, 1) is its randomness.

    Skip and equal look at plain sums, the choice and its misjudgement at weighted ones; equal overrides a mistake, skip
    overrides all. `tired` `[N]` adds to the probability of a mistake.
    """
    if left.shape != right.shape or uniform.shape != (len(left), 2) or tired.shape != (len(left),):
        raise ValueError(f"rewards {left.shape} and {right.shape} with randomness {uniform.shape}, tired {tired.shape}")
    skip_below, equal_below = thresholds(typical_return, parameters, repeated=repeated)
    left_sum, right_sum = discounted_sum(left, 1.0), discounted_sum(right, 1.0)
    difference = discounted_sum(right, parameters.gamma) - discounted_sum(left, parameters.gamma)
    wrong = either(slips(parameters.mistake, tired), misjudged(difference, typical_return, parameters.blur))
    goes_right = prefers_right(difference, parameters.beta, uniform[:, 0]) ^ (uniform[:, 1] < wrong)
    choices = np.where(goes_right, "right", "left").astype(object)
    choices[np.abs(left_sum - right_sum) < equal_below] = "equal"
    if skip_below > 0:
        choices[np.maximum(left_sum, right_sum) <= skip_below] = "skip"
    said: list[Choice] = choices.tolist()
    return said


def stream_of(seed: int, teacher: str, query: str) -> np.random.Generator:
    """The generator of one answer. The run's name, an id's first part, has no say: a repeated run is answered alike."""
    return generator(seed, "teacher", teacher, query.partition("/")[2] or query)


class ScriptedTeacher(ImmediateTeacher):
    """One of the six, with the options' changes. Its answer to a query depends on the seed and the query alone."""

    def __init__(self, options: TeacherOptions, *, seed: int) -> None:
        if options.name not in PRESETS:
            raise ValueError(f"{options.name!r} is no scripted teacher; the scripted ones are {', '.join(PRESETS)}")
        super().__init__(options.name)
        self.parameters = replace(PRESETS[options.name], **options.overrides())
        self._compatible = options.bpref_compat
        self._seed = seed

    def choose(self, queries: Queries) -> Sequence[Choice]:
        """The choices of `judge`; thresholds are in units of the queries' typical return.

        Raises `UserError` where a segment has no true reward: no comparison with it would be one.
        """
        if not (queries.left.rewarded() & queries.right.rewarded()).all():
            raise UserError(f"the scripted teacher {self.annotator} goes by the true reward, which a segment lacks")
        # B-Pref's code passes a margin that already holds eps to a setter that multiplies by eps, in all sessions but
        # the first (`train_PEBBLE.py`, "update margin"): its later thresholds are 10 times too small at eps 0.1.
        repeated = self._compatible and queries.session > FIRST_SESSION
        uniform = np.array([stream_of(self._seed, self.annotator, key).random(2) for key in queries.ids])
        mine = self.parameters
        return judge(
            queries.left.reward,
            queries.right.reward,
            mine,
            queries.typical_return,
            uniform.reshape(-1, 2),
            tiredness(queries.ids, queries.session, mine.fatigue, mine.session_fatigue),
            repeated=repeated,
        )


class RandomTeacher(ImmediateTeacher):
    """Left or right by a fair coin, the same for a query each time: the control that learns nothing from answers."""

    def __init__(self, *, seed: int) -> None:
        super().__init__("random")
        self._seed = seed

    def choose(self, queries: Queries) -> Sequence[Choice]:
        return ["right" if stream_of(self._seed, self.annotator, key).random() < 0.5 else "left" for key in queries.ids]


class SilentTeacher(ImmediateTeacher):
    """Never answers: the control without labels."""

    def __init__(self) -> None:
        super().__init__("silent")

    def choose(self, queries: Queries) -> Sequence[None]:
        return [None] * len(queries)

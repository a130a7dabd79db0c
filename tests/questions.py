"""Questions whose true rewards are given, and what a teacher says of them."""

from typing import Any

import numpy as np

from rayrlhf.config import TeacherOptions
from rayrlhf.preferences.segments import Queries, Segments, query_id
from rayrlhf.teachers import make_teacher

Rewards = np.ndarray


def segments(reward: Rewards) -> Segments:
    count, steps = reward.shape
    return Segments(
        obs=np.zeros((count, steps, 1), np.float32),
        action=np.zeros((count, steps, 1), np.float32),
        reward=reward.astype(np.float32),
        success=np.zeros((count, steps), bool),
        episode=np.zeros(count, np.int64),
        start=np.zeros(count, np.int64),
    )


def asked(left: Rewards, right: Rewards, *, typical_return: float = 0.0, session: int = 0) -> Queries:
    ids = tuple(query_id("run", session, i) for i in range(len(left)))
    return Queries(ids, session, segments(left), segments(right), typical_return)


def answers(queries: Queries, *, seed: int = 0, **options: Any) -> list[str]:
    teacher = make_teacher(TeacherOptions(**options), seed)
    teacher.ask(queries)
    given_answers = teacher.collect()
    assert [answer.query_id for answer in given_answers] == list(queries.ids)
    return [answer.choice for answer in given_answers]

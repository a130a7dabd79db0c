"""Does it learn? Ten seeds of each toy with a truthful teacher against ten with random answers."""

from pathlib import Path

import numpy as np
import pytest
from support import advance, build, changed

from rayrlhf.config.load import load_config
from rayrlhf.evaluation.statistics import mann_whitney_greater

SEEDS = range(10)


def true_return(task: str, teacher: str, seed: int, folder: Path) -> float:
    """Mean true return over 20 evaluation episodes at the end of the preset `toy`, synchronous, in this process."""
    run = changed(
        load_config("toy", [f"--seed={seed}", f"--env.task={task}"]),
        teacher={"name": teacher},
        rollout={"actors": 0, "synchronous": True},
    )
    algorithm = build(run, folder / f"{teacher}-{seed}")
    try:
        advance(algorithm, run.total_steps)
        return float(algorithm.evaluate(20, stream="final").episodes.true_return.mean())
    finally:
        algorithm.stop()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("task", ["point", "point-terminating"])
def test_truthful_answers_beat_random_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    """One-sided Mann-Whitney over ten seeds a side, p < 0.01; all seeds are printed."""
    truthful, random = (
        np.array([true_return(task, teacher, seed, tmp_path) for seed in SEEDS]) for teacher in ("oracle", "random")
    )
    p = mann_whitney_greater(truthful, random, np.random.default_rng(0))
    with capsys.disabled():
        print(f"\n{task}: p = {p:.5f}; truthful {truthful.round(1).tolist()}, random {random.round(1).tolist()}")
    assert p < 0.01

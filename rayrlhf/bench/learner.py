"""`bench learner`: updates per second of the run's learner.

Ours is `PebbleLearner.learn` as RLlib builds it: drawing, gathering, critics, actor, temperature, targets, means of the
losses; on a GPU replayed from CUDA graphs. The reference of the first two cases is `reference_sac.PlainLoop`, eager on
the same device with the same rows.
"""

from typing import Any, Literal, get_args

from rayrlhf.bench.data import ACTION_DIM, OBS_DIM, as_replay, learner_of, random_fragment, ray_session
from rayrlhf.bench.reference_sac import PlainLoop, PlainSac
from rayrlhf.bench.report import Count, DeviceOptions, Report, options_from
from rayrlhf.bench.stock_rllib import StockSac
from rayrlhf.bench.timing import Side, alternate, torch_threads
from rayrlhf.config import ExploreOptions, ResourceOptions, RunConfig, SacOptions

Size = Literal["2x256_b256", "3x256_b512"]
SIZES: dict[Size, tuple[tuple[int, ...], int]] = {"2x256_b256": ((256, 256), 256), "3x256_b512": ((256, 256, 256), 512)}
UNIT = "updates/s"
PLAIN = "a plain PyTorch loop: resident tensor replay, twin critics, three Adam optimisers, eager"
TUNED = "the plain loop with fused Adam and frozen critics in the actor's loss"
STOCK = {
    "stock": "RLlib's own SAC with these hidden layers and its default critics",
    "smallest": "RLlib's own SAC with this policy and the smallest critics it can make",
}
STEP = "its training step without environment: sample episodes, connector, update"
UPDATE = "its learner's update alone on a batch that is ready"


class LearnerBench(DeviceOptions):
    """Options of `bench learner`."""

    updates: Count | None = None
    """Per portion; by default 40 on a CPU and 100 on a GPU."""
    rows: Count = 100_000
    """In the replay."""
    stock: bool = True
    """Measure RLlib's own SAC too."""
    sizes: tuple[Size, ...] = get_args(Size)


def run(**given: Any) -> dict[str, Any]:
    """Measures every size in turn."""
    options = options_from(LearnerBench, given, "learner")
    report = Report("learner", options.chosen_device)
    with torch_threads(options.threads), ray_session():
        for size in options.sizes:
            _measure(report, size, options)
        return report.as_dict()


def _measure(report: Report, size: Size, options: LearnerBench) -> None:
    hidden, batch_size = SIZES[size]
    device = report.device
    sac = SacOptions(hidden=hidden, batch_size=batch_size, replay_capacity=options.rows)
    sides, stock = _sides(sac, options, device), {}
    few = min(5, _portion(options, device))  # they are slow
    if options.stock:
        stock = {
            "stock": StockSac(hidden, batch_size, device=device),
            "smallest": StockSac(hidden, batch_size, device=device, smallest=True),
        }
    for name, algorithm in stock.items():
        sides[f"{name}_step"] = _counted(algorithm.steps, few)
        sides[f"{name}_learner"] = _counted(algorithm.updates, few)
    rates = alternate(sides, rounds=options.rounds, clock=options.clock)
    report.add(size, rates, "ours", "plain", unit=UNIT, against=PLAIN)
    report.add(f"{size}_tuned", rates, "ours", "tuned", unit=UNIT, against=TUNED)
    for name, algorithm in stock.items():
        which = STOCK[name]
        report.add(f"{size}_{name}_step", rates, "ours", f"{name}_step", unit=UNIT, against=f"{which}, {STEP}")
        report.add(f"{size}_{name}_learner", rates, "ours", f"{name}_learner", unit=UNIT, against=f"{which}, {UPDATE}")
        algorithm.stop()


def _sides(sac: SacOptions, options: LearnerBench, device: str) -> dict[str, Side]:
    run = RunConfig(
        mode="oracle",
        sac=sac,
        total_steps=max(options.rows, 2),
        explore=ExploreOptions(seed_steps=0, unsupervised_steps=0),
        resources=ResourceOptions(threads=options.threads),
    )
    fragment = random_fragment(options.rows)
    learner = learner_of(run, device=device)
    learner.reward_with("true")
    learner.insert([fragment])
    replay = as_replay(fragment, device)
    plain = PlainLoop(PlainSac(OBS_DIM, ACTION_DIM, sac, device=device), replay)
    tuned = PlainLoop(PlainSac(OBS_DIM, ACTION_DIM, sac, device=device, tuned=True), replay)
    portion = _portion(options, device)
    return {
        "ours": _counted(learner.learn, portion),
        "plain": _counted(plain.learn, portion),
        "tuned": _counted(tuned.learn, portion),
    }


def _portion(options: LearnerBench, device: str) -> int:
    return options.updates or (100 if device == "cuda" else 40)


def _counted(work: Any, portion: int) -> Side:
    def side() -> float:
        work(portion)
        return float(portion)

    return side

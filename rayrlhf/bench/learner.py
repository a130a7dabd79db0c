"""`bench learner`: how fast the learners of PEBBLE and PrefPPO are.

Of SAC, ours is `PebbleLearner.learn` as RLlib builds it: drawing, gathering, critics, actor, temperature, targets,
means of the losses; on a GPU replayed from CUDA graphs. The reference of the first two cases is
`reference_sac.PlainLoop`, eager on the same device with the same rows.

Of PPO, ours is an iteration of `PrefPpoLearner`: fragments to rows with rewards and advantages, passes of minibatches,
statistics of observations. The reference is `reference_ppo.PlainPpo`, which has tensors to begin with and normalises
no observations. Counted are steps learnt from: an iteration's, times its passes.
"""

from typing import Any, Literal, get_args

import numpy as np
import torch

from rayrlhf.bench.data import ACTION_DIM, OBS_DIM, as_replay, filled_learner, learner_of, random_fragment, ray_session
from rayrlhf.bench.reference_ppo import PlainPpo, TensorSteps
from rayrlhf.bench.reference_sac import PlainLoop, PlainSac
from rayrlhf.bench.report import Count, DeviceOptions, Report, options_from
from rayrlhf.bench.stock_rllib import StockPpo, StockSac
from rayrlhf.bench.timing import Side, alternate, torch_threads
from rayrlhf.config import (
    ExploreOptions,
    PpoOptions,
    ResourceOptions,
    RolloutOptions,
    RunConfig,
    SacOptions,
)
from rayrlhf.preferences.fragments import Fragment

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


PPO_ENVS, PPO_STEPS = 16, 250
"""An iteration of B-Pref's PrefPPO: environments, and steps of each."""
PPO_SIZES: dict[str, tuple[tuple[int, ...], int]] = {"2x64_b100": ((64, 64), 100), "3x256_b125": ((256, 256, 256), 125)}
STOCK_PPO = "RLlib's own PPO with these networks: advantages of episodes, connector, minibatches, updates"


class LearnerBench(DeviceOptions):
    """Options of `bench learner`."""

    updates: Count | None = None
    """Per portion; by default 40 on a CPU and 100 on a GPU."""
    rows: Count = 100_000
    """In the replay."""
    stock: bool = True
    """Measure RLlib's own SAC and PPO too."""
    sizes: tuple[Size, ...] = get_args(Size)
    """Of SAC."""
    ppo: bool = True
    """Measure PPO too."""
    epochs: Count = 2
    """Of PPO: passes per iteration."""


def run(**given: Any) -> dict[str, Any]:
    """Measures every size in turn."""
    options = options_from(LearnerBench, given, "learner")
    report = Report("learner", options.chosen_device)
    with torch_threads(options.threads), ray_session():
        for size in options.sizes:
            _measure(report, size, options)
        for name, (hidden, batch_size) in PPO_SIZES.items() if options.ppo else ():
            _measure_ppo(report, f"ppo_{name}", PpoOptions(hidden=hidden, batch_size=batch_size), options)
        return report.as_dict()


def _measure(report: Report, size: Size, options: LearnerBench) -> None:
    hidden, batch_size = SIZES[size]
    device = report.device
    sac = SacOptions(hidden=hidden, batch_size=batch_size)
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
    fragment = random_fragment(options.rows)
    learner = filled_learner(fragment, sac, threads=options.threads, device=device, mode="oracle")
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


def _measure_ppo(report: Report, name: str, ppo: PpoOptions, options: LearnerBench) -> None:
    device, rows, epochs = report.device, PPO_ENVS * PPO_STEPS, options.epochs
    learner = ppo_learner_of(ppo, threads=options.threads, device=device)
    fragment = acted(random_fragment(rows))
    plain, tuned = (PlainPpo(OBS_DIM, ACTION_DIM, ppo, device=device, tuned=fused) for fused in (False, True))
    steps = as_steps(fragment).to(device)

    def ours(_: int) -> None:
        learner.insert([fragment])
        learner.learn(epochs, rows // ppo.batch_size, ppo.clip)

    learnt = rows * epochs
    sides = {
        "ours": _counted(ours, learnt),
        "plain": _counted(lambda _: plain.learn(steps, epochs, ppo.clip), learnt),
        "tuned": _counted(lambda _: tuned.learn(steps, epochs, ppo.clip), learnt),
    }
    stock = StockPpo(ppo, rows, envs=PPO_ENVS, device=device) if options.stock else None
    before = {}
    if stock is not None:
        before["stock"] = stock.collect
        sides["stock"] = _counted(lambda _: stock.learn(epochs), learnt)
    rates = alternate(sides, rounds=options.rounds, clock=options.clock, before=before)
    unit = "steps learnt from/s"
    report.add(name, rates, "ours", "plain", unit=unit, against="a plain PyTorch loop of PPO, eager")
    report.add(f"{name}_tuned", rates, "ours", "tuned", unit=unit, against="the plain loop with a fused Adam")
    if stock is not None:
        report.add(f"{name}_stock", rates, "ours", "stock", unit=unit, against=STOCK_PPO)
        stock.stop()


def ppo_learner_of(ppo: PpoOptions, *, threads: int, device: str) -> Any:
    """PrefPPO's learner of the true reward, for iterations of `PPO_ENVS` times `PPO_STEPS` steps."""
    run = RunConfig(
        algorithm="prefppo",
        mode="oracle",
        ppo=ppo,
        explore=ExploreOptions(unsupervised_steps=0),
        rollout=RolloutOptions(actors=1, envs_per_actor=PPO_ENVS, fragment_length=PPO_STEPS),
        resources=ResourceOptions(threads=threads),
    )
    learner = learner_of(run, device=device)
    learner.reward_with("true")
    return learner


def acted(fragment: Fragment) -> Fragment:
    """`[T, N, ...]` of `PPO_ENVS` environments, as a policy of zeros with unit deviation would have acted."""

    def dealt(column: Any) -> Any:
        return column.reshape(PPO_ENVS, -1, *column.shape[2:]).swapaxes(0, 1).copy()

    columns = {name: dealt(column) for name, column in vars(fragment).items() if column is not None}
    noise = np.random.default_rng(1).standard_normal(columns["action"].shape, dtype=np.float32)
    log_prob = (-0.5 * noise**2 - 0.5 * np.log(2 * np.pi)).sum(-1, dtype=np.float32)
    return Fragment(**columns | {"action": noise.clip(-1, 1), "raw_action": noise, "log_prob": log_prob})


def as_steps(fragment: Fragment) -> TensorSteps:
    """The fragment's steps for the plain loop."""
    assert fragment.raw_action is not None and fragment.log_prob is not None
    done = (fragment.terminated | fragment.truncated).astype(np.float32)
    columns = fragment.obs, fragment.raw_action, fragment.log_prob, fragment.reward, done, fragment.next_obs[-1]
    return TensorSteps(*(torch.from_numpy(column.copy()) for column in columns))

"""How well a run's reward model and policy agree with people, by answers they were not trained on, and with the truth.

What is found is kept in the run's `alignment.json`, from which `rayrlhf plot --compare` takes it.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayrlhf.algorithms.files import Arrays
from rayrlhf.config import RunConfig
from rayrlhf.errors import UserError
from rayrlhf.evaluation.agreement import agreement, policy_preference
from rayrlhf.evaluation.calibration import calibration
from rayrlhf.evaluation.coverage import DISTRIBUTION, distance_to_truth
from rayrlhf.language.instructions import told
from rayrlhf.preferences import Labels, PreferenceDataset, Queries, labels_from
from rayrlhf.preferences.exchange import import_file
from rayrlhf.preferences.storage import dataset_folder, exists
from rayrlhf.preferences.table import Record
from rayrlhf.rewards import RewardEnsemble
from rayrlhf.trained import Trained, learnt_from, load_chosen

FILES = (".parquet", ".jsonl")


def align(target: Path, *, answers: str | None = None) -> dict[str, Any]:
    """What the policy and reward model in `target`, a run's folder or a checkpoint, agree with; plain JSON.

    `answers` is another run's folder, a dataset's, or a Parquet or JSON lines file. Without it, only the true reward is
    compared with. Raises `UserError` where there is no checkpoint or nothing to compare, and where nothing fits.
    """
    trained = load_chosen(target)
    if answers is None and trained.ensemble is None:
        raise UserError(f"{target} has {_no_model(trained.config)}: --answers compares its policy with answers")
    progress = trained.manifest["progress"]
    found: dict[str, Any] = {"checkpoint": trained.place.name, "env_steps": progress["env_steps"]}
    if answers is not None:
        found |= _against_answers(trained, answers)
    if trained.ensemble is None:
        found["reward_model"] = _no_model(trained.config)
    else:
        found["true_reward"] = _against_truth(trained)
    trained.run.write_alignment(found)
    return found


def _no_model(config: RunConfig) -> str:
    if config.mode == "oracle":
        return "no reward model: it trains on the true reward"
    return "no reward model yet: nobody has answered"


def _gamma(config: RunConfig) -> float:
    return config.ppo.gamma if config.algorithm == "prefppo" else config.sac.gamma


def _against_truth(trained: Trained) -> dict[str, Any]:
    scorer = trained.scorer()
    assert scorer is not None
    gamma = _gamma(trained.config)
    found = distance_to_truth(trained.actor, scorer, trained.config, trained.instructions, gamma=gamma)
    return {**asdict(found), "distribution": DISTRIBUTION}


# --- held-out answers ---


def _against_answers(trained: Trained, where: str) -> dict[str, Any]:
    records = read_answers(where)
    held_out, own = _without(records, learnt_from(trained.run))
    labels = [labels_from(*record) for record in held_out]
    labels = [part for part in labels if len(part)]
    counts = _counts(records)
    if not labels:
        if own:
            raise UserError(
                f"{where} holds nothing but what {trained.run.name!r} was asked itself, or its reward model was fitted "
                "to: name other answers"
            )
        raise UserError(f"{where} holds no answer that prefers a side or says equal")
    if (vocabulary := trained.vocabulary) is not None:
        labels = [told(part, vocabulary.vectors, where) for part in labels]
    _require_widths(labels, trained, where)
    target = np.concatenate([part.target for part in labels])
    follows = [policy_preference(trained.actor, part, gamma=_gamma(trained.config)) for part in labels]
    found: dict[str, Any] = {
        "answers": {"from": where, **counts, "asked_itself": own, "labels": len(target)},
        "policy_agreement": asdict(agreement(np.concatenate(follows), target)),
    }
    if trained.ensemble is not None:
        right = probabilities(trained, trained.ensemble, labels)
        found["reward_model_agreement"] = asdict(agreement(right - 0.5, target))
        found["calibration"] = calibration(right, target).row()
    return found


def probabilities(trained: Trained, weights: Arrays, labels: Sequence[Labels]) -> NDArray[np.float64]:
    """The ensemble's P(right) `[N]` of all pairs: the mean over its members."""
    ensemble = RewardEnsemble(trained.config.reward, trained.spec.obs_dim, trained.spec.action_dim, seed=0, threads=1)
    ensemble.load_weights(weights)
    return np.concatenate([ensemble.probabilities(part).mean(axis=0) for part in labels])


def read_answers(where: str) -> list[Record]:
    """Questions with their answers from a run's folder, a dataset's or a file; `UserError` where there are none."""
    if where.endswith(FILES):
        with TemporaryDirectory() as folder:
            dataset = PreferenceDataset(folder)
            import_file(dataset, where)
            records = dataset.read()
    else:
        if not exists(where):
            raise UserError(f"there are no answers at {where!r}: name a run, a dataset's folder, or a file of answers")
        records = PreferenceDataset(dataset_folder(where)).read()
    if not any(answers for _, answers in records):
        raise UserError(f"{where} holds no answers")
    return records


def _without(records: Sequence[Record], known: frozenset[str]) -> tuple[list[Record], int]:
    """The records without questions about `known` pairs, and how many those were."""
    kept, dropped = [], 0
    for queries, answers in records:
        fresh = _rows(queries, [pair not in known for pair in queries.pairs()])
        dropped += len(queries) - len(fresh)
        ids = set(fresh.ids)
        kept.append((fresh, [answer for answer in answers if answer.query_id in ids]))
    return kept, dropped


def _rows(queries: Queries, wanted: list[bool]) -> Queries:
    return queries.take(np.flatnonzero(wanted))


def _counts(records: Sequence[Record]) -> dict[str, int]:
    answered = {answer.query_id for _, answers in records for answer in answers if answer.choice != "skip"}
    questions = sum(len(queries) for queries, _ in records)
    return {"questions": questions, "unanswered": questions - len(answered)}


def _require_widths(labels: Sequence[Labels], trained: Trained, where: str) -> None:
    wanted = (trained.spec.obs_dim, trained.spec.action_dim)
    for part in labels:
        found = (part.left.obs.shape[2], part.left.action.shape[2])
        if found != wanted:
            raise UserError(
                f"{where} holds observations of {found[0]} numbers and actions of {found[1]}, "
                f"{trained.run.name!r} has {wanted[0]} and {wanted[1]}: the answers are of another environment"
            )

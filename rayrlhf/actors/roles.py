"""The two roles around the reward model, as plain classes: trajectories with their questions, and ensemble members."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayrlhf import seeding
from rayrlhf.algorithms.collector import environment_of, number_of
from rayrlhf.config import RunConfig
from rayrlhf.envs.draws import Draws
from rayrlhf.envs.instructions import Instructions
from rayrlhf.envs.make import draws_of
from rayrlhf.errors import SessionError
from rayrlhf.language.instructions import instructed, plain
from rayrlhf.policies.ppo import moments_in
from rayrlhf.preferences.answers import Choice, Labels
from rayrlhf.preferences.fragments import Floats, Fragment, Integers
from rayrlhf.preferences.segments import Queries, Segments, query_id
from rayrlhf.preferences.trajectories import TrajectoryStore
from rayrlhf.queries.selection import draw_pairs, draw_pairs_by_task, select
from rayrlhf.rewards import Episodes, EpochReport, FitReport, RewardEnsemble, merge_members, take_members

Arrays = dict[str, NDArray[Any]]
Pairs = tuple[Segments, Segments]


class TrajectoryRole:
    """The newest episodes, and the questions made of them."""

    def __init__(
        self,
        run: RunConfig,
        run_name: str,
        obs_dim: int,
        action_dim: int,
        instructions: Instructions | None = None,
    ) -> None:
        self._run, self._name, self._instructions = run, run_name, instructions
        self._store = TrajectoryStore(run.queries.recent_episodes, obs_dim=obs_dim, action_dim=action_dim)
        self._moments: TrajectoryStore | None = None
        self._chosen: Arrays = {}
        self._scenes: tuple[list[Floats | None], ...] = ([], [])
        self._index = np.empty(0, np.int64)
        self._labelled: list[Labels] = []

    def add(self, *fragments: Fragment) -> None:
        """Appends fragments to the episodes they belong to; an environment's running episode that they leave ends."""
        for fragment in fragments:
            now = {environment_of(int(episode)): int(episode) for episode in fragment.episode[0]}
            for store in self._stores():
                store.close_open_episodes(lambda old, now=now: now.get(environment_of(old), old) != old)  # type: ignore[misc]
            self._store.add(fragment)
            if fragment.moment is not None:
                self._moments_of_width(fragment.moment.shape[-1]).add(_of_moments(fragment, fragment.moment))

    def _stores(self) -> list[TrajectoryStore]:
        return [self._store] if self._moments is None else [self._store, self._moments]

    def _moments_of_width(self, width: int) -> TrajectoryStore:
        """The store of the moments, which hold `width` numbers each, of the same episodes."""
        if self._moments is None:
            self._moments = TrajectoryStore(self._run.queries.recent_episodes, obs_dim=width, action_dim=0)
        return self._moments

    def add_labels(self, labels: Labels) -> None:
        """Remembers which pairs are labelled: k-center starts from them."""
        if self._run.queries.selection.startswith("k_center"):
            left, right = self._observed(labels.left), self._observed(labels.right)
            self._labelled.append(replace(labels, left=left, right=right))

    def candidates(self, session: int, questions: int, factor: int) -> Pairs:
        """`factor` times as many pairs as `questions`; SessionError where the episodes hold fewer than `questions`."""
        length = self._run.queries.segment_length
        starts = self._store.legal_starts(length)
        if starts > 1 and starts * (starts - 1) // 2 < questions:
            raise SessionError(
                f"{questions} questions are due and the stored episodes hold {starts} segments of {length} steps: "
                "lower queries.per_session or queries.segment_length, or collect more steps before the first session"
            )
        rng = seeding.generator(self._run.seed, "candidates", session)
        count, margin, tasks = questions * factor, self._run.reward.crop, len(self._run.env.tasks)
        if tasks > 1:
            pairs = draw_pairs_by_task(self._store, count, length, rng, self._task_of, tasks, margin=margin)
        else:
            pairs = draw_pairs(self._store, count, length, rng, margin=margin)
        pairs = self._told_the_same(*pairs)
        # now: when the questions are chosen, an episode may have gone
        self._scenes = tuple(self._moments_of(side) for side in pairs)
        return pairs

    def choose(self, session: int, count: int, method: str, pairs: Pairs, *logits: NDArray[np.float32]) -> Queries:
        """The `count` questions among `pairs` by `method`; `logits` `[E_g, N]` where it ranks by the members."""
        left, right = pairs
        rng = seeding.generator(self._run.seed, "selection", session)
        labelled = Labels.concatenate(self._labelled) if self._labelled else None
        device = _device(self._run)
        # diversity is of what happened, not of what was said
        index = select(
            method,
            count,
            self._observed(left),
            self._observed(right),
            lambda *_: _probability(logits),
            labelled,
            rng,
            device=device,
        )
        ids = tuple(query_id(self._name, session, i) for i in range(count))
        typical = self._store.typical_return(self._run.queries.segment_length)
        asked = left.take(index)
        queries = Queries(ids, session, asked, right.take(index), typical, self._said(asked)[0])
        self._index, self._chosen = index, self._of_candidates(ids, index)
        return queries

    def tests(self, session: int, count: int, pairs: Pairs) -> tuple[Queries, dict[str, Choice]]:
        """Up to `count` other pairs, those whose true returns are farthest apart, with the answer that these give.

        After `choose`, for the same `pairs`.
        """
        left, right = pairs
        gap = right.reward.sum(1) - left.reward.sum(1)
        gap[self._index] = 0
        best = np.argsort(-np.abs(gap), kind="stable")[:count]
        best = best[gap[best] != 0]
        ids = tuple(f"{query_id(self._name, session, i)}-test" for i in range(len(best)))
        asked = left.take(best)
        queries = Queries(ids, session, asked, right.take(best), instructions=self._said(asked)[0])
        self._chosen |= self._of_candidates(ids, best)
        return queries, {key: "right" if gap[i] > 0 else "left" for key, i in zip(ids, best, strict=True)}

    def _draws_of(self, episode: int) -> tuple[Draws, int]:
        return draws_of(self._run.env, self._run.seed, (environment_of(episode),)), number_of(episode)

    def _task_of(self, episode: int) -> int:
        draws, number = self._draws_of(episode)
        return draws.task_of(0, number)

    def _said(self, segments: Segments) -> tuple[tuple[str, ...], Floats]:
        """What was said in the episode of each segment: sentences, and vectors `[N, D]`; none where nothing was."""
        width = self._run.env.said_width
        if self._instructions is None or not len(segments):
            return (), np.empty((len(segments), width), np.float32)
        draws = map(self._draws_of, segments.episode.tolist())
        sentences, vectors = zip(*(self._instructions.of(d, 0, number) for d, number in draws), strict=True)
        return tuple(sentences), np.stack(vectors)

    def _told_the_same(self, left: Segments, right: Segments) -> Pairs:
        """Pairs of which both segments have the instruction of the left one's episode, in this run's words for it.

        Episodes of another run, which explored for this one, may have been told in others.
        """
        if self._instructions is None:
            return left, right
        vectors = self._said(left)[1]
        return instructed(self._observed(left), vectors), instructed(self._observed(right), vectors)

    def _observed(self, segments: Segments) -> Segments:
        """The segments without instructions."""
        width = self._run.env.said_width
        return plain(segments, width) if width else segments

    def episodes(self) -> Episodes:
        """The stored episodes, for pairs that nobody is asked about."""
        return Episodes(*self._store.table())

    def chosen_moments(self) -> Arrays:
        """What it takes to draw both segments `[T, M]` of each query and test chosen last: `ID/left` and `ID/right`.

        As far as it is stored: not of episodes from before people were asked.
        """
        return self._chosen

    def _moments_of(self, segments: Segments) -> list[Floats | None]:
        """The moments `[T, M]` of each segment, as far as they are stored."""
        if self._moments is None:
            return [None] * len(segments)
        where = zip(segments.episode.tolist(), segments.start.tolist(), strict=True)
        return [self._moments.observed(episode, start, segments.length) for episode, start in where]

    def _of_candidates(self, ids: Sequence[str], index: Integers) -> Arrays:
        """The moments of the candidates at `index`, by the ids that these get."""
        found: Arrays = {}
        for side, scenes in zip(("left", "right"), self._scenes, strict=True):
            for key, i in zip(ids, index, strict=True):
                if (moments := scenes[i]) is not None:
                    found[f"{key}/{side}"] = moments
        return found

    def close_episodes(self, environments: list[int] | None) -> None:
        """Closes the running episodes of `environments`, or all."""
        chosen = None if environments is None else set(environments)
        for store in self._stores():
            store.close_open_episodes(lambda episode: chosen is None or environment_of(episode) in chosen)

    def state(self) -> tuple[Arrays, Arrays | None]:
        """The stored episodes, and their moments if these are kept."""
        return self._store.state(), None if self._moments is None else self._moments.state()

    def load(self, episodes: Arrays, moments: Arrays | None, whole_episodes_only: bool) -> None:
        """Restores what `state` returned; episodes that were running are closed where they cannot go on."""
        self._store.load_state(episodes)
        if moments is not None:
            self._moments_of_width(TrajectoryStore.obs_dim_of(moments)).load_state(moments)
        if whole_episodes_only:
            for store in self._stores():
                store.close_open_episodes()


class EnsembleRole:
    """Some members of the ensemble and all labels."""

    def __init__(self, run: RunConfig, obs_dim: int, action_dim: int, members: Sequence[int]) -> None:
        threads = run.resources.member_threads
        self._ensemble = RewardEnsemble(
            run.reward, obs_dim, action_dim, seed=run.seed, members=members, device=_device(run), threads=threads
        )
        self._parts: list[Labels] = []

    def add_labels(self, labels: Labels) -> None:
        """Appends labels to those the members are fitted to."""
        if len(labels):
            self._parts.append(labels)
            self._parts = [Labels.concatenate(self._parts)]

    def pair_logits(self, pairs: Pairs) -> NDArray[np.float32]:
        """Each member's logit of P(right preferred), `[E_g, N]`."""
        return self._ensemble.pair_logits(*pairs).cpu().numpy()

    def standardise_by(self, policy: Arrays) -> None:
        """Takes the statistics of observations from a policy's weights."""
        self._ensemble.standardise_by(moments_in(policy))

    def begin_from(self, meta: Arrays) -> None:
        """Begins from meta-weights of the whole ensemble."""
        self._ensemble.begin_from(meta)

    def restart(self) -> None:
        """Forgets what fits have taught."""
        self._ensemble.restart()

    def fit(self) -> FitReport:
        """Fits to all labels; for a role that holds every member."""
        return self._ensemble.fit(self._parts[0])

    def fit_epoch(self, probability: NDArray[np.float64] | None = None) -> EpochReport:
        """One pass over all labels; for a role that holds some members. `probability` `[N]` is that of all."""
        return self._ensemble.fit_epoch(self._parts[0], probability)

    def probabilities(self) -> NDArray[np.float64]:
        """Each member's P(right) of the labelled pairs, `[E_g, N]`."""
        return self._ensemble.probabilities(self._parts[0])

    def pretrain(self, *explored: Arrays) -> None:
        """Learns `target` `[M]` of `obs` and `action`, of each learner's rows."""
        columns = [np.concatenate([part[name] for part in explored]) for name in ("obs", "action", "target")]
        self._ensemble.pretrain(*columns)

    def newest_labels(self, count: int) -> Labels:
        """The last `count` labels, or all there are."""
        labels = self._parts[0]
        kept = np.arange(max(0, len(labels) - count), len(labels))
        return labels.take(kept)

    def step(self, gradients: Arrays) -> None:
        """One step of the optimiser by the whole ensemble's `gradients`, `network/NAME` `[E, ...]`."""
        self._ensemble.step({name: value[list(self._ensemble.members)] for name, value in gradients.items()})

    def take_unlabelled(self, episodes: Episodes) -> None:
        """Where the next fit draws pairs from that nobody was asked about."""
        self._ensemble.take_unlabelled(episodes)

    def labelled_rewards(self) -> NDArray[np.float32]:
        """Unscaled rewards of the labelled segments, for the common scale."""
        return self._ensemble.labelled_rewards(self._parts[0])

    def segment_rewards(self, segments: Segments) -> NDArray[np.float32]:
        """Each member's reward at each step `[E_g, N, T]`, as training has it."""
        return self._ensemble.member_rewards(segments.obs, segments.action).cpu().numpy()

    def set_reward_scale(self, scale: float) -> None:
        """Takes over the common scale."""
        self._ensemble.set_reward_scale(scale)

    def weights(self) -> Mapping[str, NDArray[Any]]:
        """What scoring needs."""
        return self._ensemble.weights()

    def merge(self, *parts: Mapping[str, NDArray[Any]]) -> Arrays:
        """The whole ensemble's weights from those of all roles."""
        return merge_members(parts)

    def state(self) -> Arrays:
        """Networks, optimisers and counters; labels are in the answer log."""
        return self._ensemble.state()

    def load(self, whole: Arrays) -> None:
        """Restores these members from the state of the whole ensemble, over however many roles it was spread."""
        self._ensemble.load_state(take_members(whole, self._ensemble.members))


def _of_moments(fragment: Fragment, moment: Floats) -> Fragment:
    """The fragment with moments in place of observations and actions."""
    nothing = np.empty((*moment.shape[:2], 0), np.float32)
    return replace(fragment, obs=moment, next_obs=moment, action=nothing, moment=None)


def _probability(logits: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    return torch.sigmoid(torch.from_numpy(np.concatenate(logits)))


def _device(run: RunConfig) -> str:
    """Where this process computes: on the GPU that it was given, if any."""
    return "cuda" if run.resources.reward_gpus and torch.cuda.is_available() else "cpu"

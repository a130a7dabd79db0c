"""Preferences over many tasks: who acts, what is asked, and that an interruption costs nothing."""

from pathlib import Path

import numpy as np
import pytest

from rayrlhf.cli.generate import run
from rayrlhf.config.recipe import Episodes, Recipe
from rayrlhf.config.schema import EnvOptions
from rayrlhf.config.tasks import ML10_TRAIN
from rayrlhf.envs.experts import play, start_of
from rayrlhf.envs.metaworld import MetaWorldEnv
from rayrlhf.errors import UserError
from rayrlhf.generating import chosen_tasks, draw_of, generate
from rayrlhf.language.instructions import wordings_of
from rayrlhf.preferences.answers import labels_from
from rayrlhf.preferences.dataset import PreferenceDataset

SMALL = Recipe(
    tasks="window-open, drawer-close",
    draws=2,
    episodes=Episodes(expert=1, within=1, cross=1, random=1),
    pairs=20,
    segment_length=10,
    horizon=60,
)
TASKS = ("window-open", "drawer-close")


def quiet(line: str) -> None:
    pass


def test_an_expert_without_noise_solves_its_own_draw_from_where_the_environment_starts() -> None:
    options = EnvOptions(task="drawer-close", horizon=300)
    [episode] = play(options, TASKS, 2, 1, Episodes(expert=1, within=0, cross=0, random=0, noise=0.0), seed=3)
    assert episode.success[-1, 0] and not episode.success[:-1].any(), "it ends with the success"
    assert episode.truncated[-1, 0] and not episode.truncated[:-1].any()
    assert not episode.obs[:, 0, 36:].any(), "the goal is hidden from whoever is taught"
    env = MetaWorldEnv(options)
    obs = env.reset(start_of(3, "drawer-close", 1))
    for t in range(len(episode.obs)):
        np.testing.assert_array_equal(episode.obs[t, 0], obs.astype(np.float32))
        obs, reward, *_ = env.step(episode.action[t, 0])
        assert np.float32(reward) == episode.reward[t, 0]


def test_the_kinds_act_differently_in_the_same_draw() -> None:
    options = EnvOptions(task="window-open", horizon=60)
    episodes = play(options, TASKS, 3, 0, Episodes(expert=1, within=1, cross=1, random=1, noise=0.0), seed=0)
    starts = {episode.obs[0, 0].tobytes() for episode in episodes}
    assert len(starts) == 1
    returns = [episode.reward.mean() for episode in episodes]
    assert returns[0] > max(returns[2:]), "its own expert knows best"
    assert len({episode.action[5].tobytes() for episode in episodes}) == 4


def test_a_draw_is_a_function_of_the_recipe() -> None:
    first, again = (draw_of(SMALL, TASKS, 1, 0) for _ in range(2))
    assert first[0].contents() == again[0].contents() and first[1] == again[1]
    assert first[0].session == 2 and len(first[0]) == 20
    other = draw_of(SMALL.model_copy(update={"seed": 1}), TASKS, 1, 0)
    assert set(first[0].contents()).isdisjoint(other[0].contents())
    assert set(first[0].instructions) <= set(wordings_of("metaworld", "drawer-close", 6))
    assert len(set(first[0].instructions)) > 1
    labels = labels_from(*first)
    gap = labels.right.reward.sum(1) - labels.left.reward.sum(1)
    np.testing.assert_array_equal(labels.target > 0.5, gap > 0)


def test_what_was_made_is_not_made_again(ray_session: None, tmp_path: Path) -> None:
    folder = str(tmp_path / "made")
    said: list[str] = []
    made = generate(SMALL, folder, said.append)
    assert (made["draws"], made["questions"], made["answers"]) == (4, 80, 80) and len(said) == 4
    whole = {path.name: path.read_bytes() for path in Path(folder).glob("*.parquet")}
    victim = sorted(whole)[1]
    (Path(folder) / victim).unlink()
    assert generate(SMALL, folder, said.append) == made and len(said) == 5
    assert {path.name: path.read_bytes() for path in Path(folder).glob("*.parquet")} == whole
    with pytest.raises(UserError, match="was begun with another pairs, seed"):
        generate(SMALL.model_copy(update={"pairs": 10, "seed": 3}), folder, quiet)


def test_a_folder_with_other_preferences_is_left_alone(tmp_path: Path) -> None:
    PreferenceDataset(tmp_path).append(*draw_of(SMALL, TASKS, 0, 0))
    with pytest.raises(UserError, match="holds other preferences"):
        generate(SMALL, str(tmp_path), quiet)


def test_tasks_may_be_kept_out() -> None:
    chosen = chosen_tasks(Recipe(without="reach, basketball, drawer-open"))
    assert chosen == tuple(task for task in ML10_TRAIN if task not in ("reach", "basketball"))
    twice = Recipe(tasks="window-open, door-open, door-open-v3", without="window-open-v3")
    assert chosen_tasks(twice) == ("door-open",)


def test_a_draw_whose_episodes_are_too_short_is_named() -> None:
    episodes = Episodes(expert=1, within=0, cross=0, random=0, noise=0.0)
    short = SMALL.model_copy(
        update={"tasks": "drawer-close", "episodes": episodes, "horizon": 300, "segment_length": 290}
    )
    with pytest.raises(UserError, match="drawer-close, draw 1: no episode has 290 steps"):
        draw_of(short, ("drawer-close",), 0, 1)


def test_a_dataset_at_a_url_is_not_begun() -> None:
    with pytest.raises(UserError, match="generate into a folder"):
        generate(SMALL, "s3://bucket/made", quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": "reach", "without": "reach"}, "leaves none"),
        ({"tasks": "raech"}, "unknown task 'raech'.*did you mean"),
        ({"without": "raech"}, "unknown task 'raech'"),
        ({"teacher": "human"}, "--teacher is 'human', wanted one of oracle"),
        ({"teacher": "silent"}, "--teacher is 'silent'"),
        ({"teacher": "mixture"}, "--teacher is 'mixture'"),
        ({"teacher": "orcale"}, "did you mean 'oracle'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate(SMALL.model_copy(update=changes), str(tmp_path / "made"), quiet)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--pairs", "0"), "--pairs: Input should be greater than 0, not 0"),
        (("--draws", "-1"), "--draws: Input should be greater than 0, not -1"),
        (("--horizon", "60", "--segment-length", "61"), "segment_length 61 is longer than horizon 60"),
        (("--within", "-1"), "--within: Input should be greater than or equal to 0, not -1"),
        (("--expert", "0", "--within", "0", "--cross", "0", "--random", "0"), "one of expert, .* must be above 0"),
        (("--pairs", "many"), "--pairs.*'many'"),
    ],
)
def test_numbers_that_cannot_be_are_one_line(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        run([str(tmp_path / "made"), *flags])
    assert "\n" not in str(raised.value) and "pydantic" not in str(raised.value)
    assert not (tmp_path / "made").exists()

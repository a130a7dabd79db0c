"""The programs in `examples/` and the code in `docs/own.md` run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ROOT / "docs" / "own.md"
SMALL = ("--total_steps=1600", "--queries.budget=20", "--queries.per_session=10")


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "said"),
    [("own_teacher.py", r"labels  20 from \d+ answers"), ("own_reward_network.py", r"reward  orders \d+% of pairs")],
)
def test_an_example_trains_and_says_what_it_did(example: str, said: str, tmp_path: Path) -> None:
    out = run([str(ROOT / "examples" / example), *SMALL, f"--storage_path={tmp_path}"], tmp_path)
    assert re.search(said, out)
    assert (Path(out.splitlines()[-1].split()[-1]) / "summary.json").is_file()


def programs() -> dict[str, str]:
    """The Python blocks of the page by the name in their first line, `# name.py`."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", OWN.read_text(), flags=re.DOTALL)
    return dict(blocks)


@pytest.mark.parametrize("name", programs())
def test_the_page_s_programs_run(name: str, tmp_path: Path) -> None:
    for file, text in programs().items():
        (tmp_path / file).write_text(text)
    run([name], tmp_path)


def test_the_page_s_environment_is_one_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `module:Id`, as the page says; its episodes follow from the seed."""
    from rayrlhf.config import EnvOptions
    from rayrlhf.envs import make_env

    (tmp_path / "my_envs.py").write_text(programs()["my_envs.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    options = EnvOptions(suite="gymnasium", task="my_envs:Lever-v0", horizon=20)
    starts = [make_env(options, 2, seed=3).reset([4, 5]) for _ in range(2)]
    assert (starts[0] == starts[1]).all() and (starts[0][0] != starts[0][1]).any()

"""Every `rayrlhf ...` in the pages on clusters and in `clusters/` is one that the command line takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayrlhf.cli import VERBS
from rayrlhf.cli.bench import BenchOptions
from rayrlhf.cli.evaluate import EvalOptions
from rayrlhf.cli.options import parse
from rayrlhf.cli.plot import PlotOptions
from rayrlhf.cli.submit import SubmitOptions, _parted, job
from rayrlhf.cli.train import TrainOptions, split_overrides
from rayrlhf.config.load import load_config
from rayrlhf.errors import UserError
from rayrlhf.placement import placement_of

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("docs/cluster*.md"), *(path for path in ROOT.glob("clusters/**/*") if path.is_file())])
OTHERS = {"eval": EvalOptions, "plot": PlotOptions, "bench": BenchOptions}
SBATCH = re.compile(r"sbatch .*?clusters/slurm/\w+\.sbatch (.*)")


def commands(text: str) -> Iterator[list[str]]:
    """The words after `rayrlhf` of each command line; what `sbatch` hands to a script goes to `train`."""
    text = text.replace("\\\n", " ")
    for line in text.splitlines():
        line = re.sub(r"\s{2,}# .*", "", line)
        handed = SBATCH.search(line)
        if handed and "..." not in line:
            yield ["train", *shlex.split(handed.group(1).strip("`"))]
        for found in re.finditer(rf"\brayrlhf ((?:{'|'.join(VERBS)})\b[^`;|&()']*)", line):
            words = shlex.split(found.group(1).strip().rstrip(".,:"))
            if len(words) > 1 and not {"...", "CONFIG", "[OPTIONS]"} & set(words) and not {'"$@"', "$@"} & set(words):
                yield [word for word in words if word != "fi"]


def take(words: list[str]) -> None:
    """Refuses what the command line would refuse before it does anything."""
    verb, *rest = words
    if verb == "submit":
        own, handed = _parted(rest)
        assert job(parse(SubmitOptions, own, "submit"), handed).command.startswith("exec python -m rayrlhf ")
    elif verb == "train":
        own, overrides = split_overrides(rest)
        options = parse(TrainOptions, own, "train")
        if options.config is not None:
            load_config(options.config, overrides)
    else:
        parse(OTHERS[verb], rest, verb)


CASES = [(file, words) for file in FILES for words in commands(file.read_text(errors="replace"))]


def test_there_are_some_in_every_page() -> None:
    assert len(CASES) > 20
    without = {file.name for file in FILES if file.suffix in (".md", ".sbatch")} - {file.name for file, _ in CASES}
    assert not without


@pytest.mark.parametrize(("file", "words"), CASES, ids=lambda it: it.name if isinstance(it, Path) else shlex.join(it))
def test_a_command_is_understood(file: Path, words: list[str]) -> None:
    take(words)


HEAD = {"CPU": 8.0, "GPU": 1.0, "durable": 1.0}
"""What a cluster in the clouds has before it grows."""


@pytest.mark.parametrize("cloud", ["aws", "gcp", "kuberay"])
def test_a_cluster_that_has_only_its_head_so_far_takes_what_the_page_submits(cloud: str) -> None:
    """Or it is waited for."""
    found = 0
    for words in commands((ROOT / "docs" / f"cluster-{cloud}.md").read_text()):
        handed = _parted(words[1:])[1] if words[0] == "submit" else []
        if handed[:1] == ["train"] and not handed[1].startswith("-"):
            _, overrides = split_overrides(handed[1:])
            run = load_config(handed[1], overrides)
            found += 1
            assert placement_of(run).misfit([HEAD]) is None or run.resources.wait_minutes >= 10
    assert found


def test_a_wrong_one_is_not() -> None:
    for line in ("rayrlhf train quickstart --sed 3", "rayrlhf submit --adress x -- train toy", "rayrlhf eval --nope x"):
        [words] = commands(line)
        with pytest.raises(UserError):
            take(words)

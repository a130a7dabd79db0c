"""The command line: `rayrlhf VERB ...`.

Each verb is a module that is imported when it is called, so that help and mistakes come at once.
"""

import importlib
import json
import os
import sys
import warnings
from collections.abc import Sequence

from rayrlhf import __version__
from rayrlhf.errors import UserError, harmless, nearest

VERBS = {
    "train": ("train", "learn a task from preferences (or its true reward), or go on with a run"),
    "submit": ("submit", "another verb as a job on a Ray cluster"),
    "status": ("status", "what runs are doing, and what has become of them"),
    "eval": ("evaluate", "success, return, smoothness of a run's policy; videos"),
    "label": ("label", "the page on which people answer: for runs, or for clips of yours"),
    "serve": ("serve", "trained policies over HTTP"),
    "export": ("export", "a policy as a file that is used without Ray or rayrlhf"),
    "tune": ("tune", "search for good options of a run"),
    "plot": ("plot", "learning curves of one or many runs"),
    "dataset": ("dataset", "preference data: info, export, import, combine, generate"),
    "fit": ("fit", "a reward model from a dataset alone, for `train CONFIG --reward.from`"),
    "pretrain": ("pretrain", "weights from many tasks, for `train CONFIG --reward.few_shot`"),
    "bench": ("bench", "speed and controls, side by side with a reference"),
    "doctor": ("doctor", "what this machine has, what is missing and how to get it"),
}
"""By verb: the module of this package that carries it out, and what it does."""

_BROKEN, _MISUSED, _INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one command line; the exit code is 0, 1 (a defect), 2 (the user can mend it) or 130 (Ctrl-C)."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    if not debug:  # importing MuJoCo where there is no display is no reason to worry
        warnings.filterwarnings("ignore", message=r".*DISPLAY environment variable is missing")
    as_json = "--json" in args
    try:
        return _dispatch(args)
    except KeyboardInterrupt as interrupt:
        _complain(f"interrupted{': ' + str(interrupt) if str(interrupt) else ''}", as_json)
        return _INTERRUPTED
    except BrokenPipeError:  # `rayrlhf ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN
    except Exception as error:
        line = str(getattr(error, "cause", None) or error)  # Ray wraps what an actor raises
        if debug or not isinstance(error, UserError):
            if as_json:
                _tell(line or type(error).__name__)
            raise
        _complain(line, as_json)
        return _MISUSED


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if args else _MISUSED
    if args[0] == "--version":
        print(f"rayrlhf {__version__}")
        return 0
    if args[0] not in VERBS:
        hint = nearest(args[0], VERBS) or f"; there are {', '.join(VERBS)}"
        raise UserError(f"there is no verb {args[0]!r}{hint}")
    verb = importlib.import_module(f"rayrlhf.cli.{VERBS[args[0]][0]}")
    return int(verb.run(args[1:]))


def _complain(message: str, as_json: bool) -> None:
    line = harmless(" ".join(message.split()))
    sys.stderr.write(f"rayrlhf: {line}\n")
    if as_json:
        _tell(line)


def _tell(line: str) -> None:
    print(json.dumps({"error": line}), flush=True)


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10}{summary}" for verb, (_, summary) in VERBS.items())
    return (
        "usage: rayrlhf VERB ...\n\n"
        "Robots learn from answers to `which of these two clips is better?`\n\n"
        f"{verbs}\n\n"
        "rayrlhf VERB --help  what a verb takes; for train with every option of a run\n"
        "--json               one JSON object as the last line; with the key error where it fails\n"
        "--debug              the whole traceback of an error\n"
        "--version            the version\n\n"
        "start with: rayrlhf train quickstart"
    )

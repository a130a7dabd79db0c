"""What the tests of metrics run in a cluster, until it is ended: `train FOLDER` or `queue FOLDER`."""

import sys
import uuid
from contextlib import suppress
from pathlib import Path

from support import changed, small

from rayrlhf.cluster import ray_session
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Accounts, Database, Question, Run
from rayrlhf.serving.deploy import queue_deployment
from rayrlhf.serving.running import serving
from rayrlhf.serving.settings import QueueSettings
from rayrlhf.training import train


def train_in(folder: Path) -> None:
    often = {"checkpoint": {"interval": 300}, "evaluation": {"interval": 200}, "tracking": {"log_interval": 50}}
    with suppress(KeyboardInterrupt):  # how the test ends it
        train(changed(small(folder), name="seen", total_steps=1_000_000, **often), progress=False)


def queue_in(folder: Path) -> None:
    database, clips = str(folder / "queue.sqlite"), folder / "clips"
    clips.mkdir()
    accounts = Accounts(Database(database))
    trainer, annotator = accounts.add("trainer", "trainer"), accounts.add("anna", "annotator")
    application = queue_deployment(QueueSettings(database=database, clips=str(clips)))
    with (
        serving(application, "queue", "127.0.0.1", 0) as url,
        QueueClient(url, trainer) as asking,
        QueueClient(url, annotator) as answering,
    ):
        asking.register(Run("asked", "t", "s"))
        asking.enqueue("asked", [Question(f"q{number}", 0, number) for number in range(3)])
        for _ in range(2):
            (shown,) = answering.lease("asked")
            key = uuid.uuid4().hex
            answering.answer(shown.lease, "left", key=key)
            answering.answer(shown.lease, "left", key=key)  # a repeated call
        answering.lease("asked")
        answering.lease("asked")  # the same again
        wait_to_be_told("asked")


def wait_to_be_told(done: str) -> None:
    print(done, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    with ray_session(4):  # metrics of a process that is gone are forgotten
        {"train": train_in, "queue": queue_in}[sys.argv[1]](Path(sys.argv[2]))

"""A program that answers whatever there is, in several threads, and notes what was acknowledged.

python answering.py URL ACKNOWLEDGED FIRST_ANNOTATOR ANNOTATORS
"""

import sys
import threading
import time
import uuid
from pathlib import Path

from rayrlhf.preferences.store import Database, PreferenceStore, UnavailableError


def answer_all(store: PreferenceStore, annotator: str, acknowledged: Path) -> None:
    """Until nothing is left to ask `annotator`; a database that is away for a while is asked again."""
    with acknowledged.open("a") as file:
        while True:
            try:
                leases = store.lease("run", annotator)
            except UnavailableError:
                time.sleep(0.05)
                continue
            if not leases:
                return
            key = uuid.uuid4().hex
            while True:
                try:
                    store.answer(annotator, leases[0].id, "left", key=key)
                    break
                except UnavailableError:  # it may have been stored: the same key says the same
                    time.sleep(0.05)
            file.write(f"{key} {annotator} {leases[0].query_id}\n")
            file.flush()


def main() -> None:
    url, acknowledged, first, count = sys.argv[1:]
    store = PreferenceStore(Database(url))
    names = [f"annotator{int(first) + i}" for i in range(int(count))]
    threads = [threading.Thread(target=answer_all, args=(store, name, Path(acknowledged))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()

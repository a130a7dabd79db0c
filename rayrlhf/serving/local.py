"""An application on this machine alone, for as long as a command or a benchmark wants it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from rayrlhf.cores import free_cores
from rayrlhf.tracking import native_stderr_to
from rayrlhf.training import LOCAL, set_ray_defaults


@contextmanager
def served(application: Application, host: str, port: int, *, name: str, replicas: int = 1) -> Iterator[None]:
    """`application` behind Serve at `host` and `port`: in this process' Ray, or one that is started for it."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with native_stderr_to(Path(os.devnull)):
        mine = not ray.is_initialized()
        if mine:
            set_ray_defaults()
            cpus = max(free_cores(), replicas + 1)
            quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
            ray.init(LOCAL, num_cpus=cpus, **quiet)
        try:
            serve.start(http_options={"host": host, "port": port})
            serve.run(application, name=name, route_prefix="/")
            yield
            serve.delete(name)  # what is in work is answered
        finally:
            if mine:
                ray.shutdown()  # and Serve's processes with it
            else:
                serve.shutdown()  # type: ignore[no-untyped-call]

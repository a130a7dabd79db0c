"""A queue behind a real HTTP server on loopback."""

import threading

import uvicorn
from app_server import free_port

from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Accounts, Database
from rayrlhf.serving.queue import build_app
from rayrlhf.serving.settings import QueueSettings


class Server:
    """A queue's server in a thread, which can be stopped and started on the same port."""

    def __init__(self, settings: QueueSettings) -> None:
        self.settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.accounts = Accounts(Database(settings.database))
        self.tokens = {role: self.accounts.add(f"the {role}", role) for role in ("annotator", "trainer", "admin")}
        self.start()

    def start(self) -> None:
        options = uvicorn.Config(build_app(self.settings), port=self.port, log_level="critical", lifespan="off")
        self._server = uvicorn.Server(options)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()

    def stop(self) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join()

    def client(self, role: str = "annotator", **options: float) -> QueueClient:
        return QueueClient(self.url, self.tokens[role], **options)

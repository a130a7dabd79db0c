"""A queue behind a real HTTP server on loopback."""

from app_server import AppServer, free_port

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
        self._running = AppServer(build_app(self.settings), self.port)

    def stop(self) -> None:
        self._running.stop()

    def client(self, role: str = "annotator", **options: float) -> QueueClient:
        return QueueClient(self.url, self.tokens[role], **options)

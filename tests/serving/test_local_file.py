"""`serve/local.yaml` as `serve deploy` has it: the queue with its first account and its page."""

import hashlib
from pathlib import Path

import httpx
import pytest
import yaml
from app_server import free_port
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

FILE = Path(__file__).parents[2] / "serve" / "local.yaml"
TOKEN = "the administrator's token, of the tests"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_the_admins_token_opens_the_queue_of_the_file_and_the_page_is_there(tmp_path: Path) -> None:
    port = free_port()
    config = yaml.safe_load(FILE.read_text())
    [application] = config["applications"]
    application["args"] |= {
        "database": str(tmp_path / "labels" / "queue.sqlite"),
        "clips": str(tmp_path / "labels" / "clips"),
        "admin_digest": hashlib.sha256(TOKEN.encode()).hexdigest(),
    }
    serve.start(http_options={**config["http_options"], "port": port})
    try:
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config), _blocking=True)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            page = client.get("/")
            assert page.status_code == 200 and "<html" in page.text
            assert client.get("/page/main.js").status_code == 200
            assert client.get("/v1/me").status_code == 401
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            assert client.get("/v1/me").json() == {"name": "admin", "role": "admin"}
            made = client.post("/v1/accounts", json={"name": "anna", "role": "annotator"})
            assert made.status_code == 201
            client.headers["Authorization"] = f"Bearer {made.json()['token']}"
            assert client.get("/v1/me").json() == {"name": "anna", "role": "annotator"}
            assert client.get("/v1/runs").json() == []
        assert (tmp_path / "labels" / "queue.sqlite").is_file()
    finally:
        serve.shutdown()

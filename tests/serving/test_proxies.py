"""The queue behind nginx and Caddy, as docs/tls.md has them set up."""

import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from app_server import free_port
from queue_server import Server

from rayrlhf.preferences.store import Question, Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PAGE = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()
HOSTS = {"robots.example.org": 8422, "questions.example.org": 8421}


def config_of(heading: str) -> str:
    found = re.search(rf"## {heading}\n.*?```\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def caddy(folder: Path, ports: dict[str, int]) -> list[str]:
    """The command of a Caddy with the page's file, but for certificates of its own."""
    text = config_of("Caddy")
    for host, port in ports.items():
        text = text.replace(f"{host} {{", f"https://localhost:{port} {{")
    options = f"admin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\nstorage file_system {folder}"
    (folder / "Caddyfile").write_text(f"{{\n{options}\n}}\n{text}")
    return ["caddy", "run", "--config", str(folder / "Caddyfile")]


def nginx(folder: Path, ports: dict[str, int]) -> list[str]:
    """The command of an nginx with the page's file, but for a certificate of its own."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    text = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", config_of("nginx"))
    text = re.sub(r"ssl_certificate  .*;", f"ssl_certificate {certificate};", text)
    for host, port in ports.items():
        text = text.replace(f"listen 443 ssl;\n    server_name {host};", f"listen 127.0.0.1:{port} ssl;")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    begin = f"pid {folder / 'pid'};\nerror_log stderr;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{places}"
    (folder / "nginx.conf").write_text(f"{begin}{text}}}\n")
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


@pytest.fixture(params=[caddy, nginx])
def proxied(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[httpx.Client]:
    """Whoever calls the queue through a proxy."""
    name = request.param.__name__
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here: apt-get install {name}")
    ports = {host: free_port() for host in HOSTS}
    command = request.param(tmp_path, ports)
    config = Path(command[2 if name == "nginx" else 3])
    text = config.read_text()
    assert text.count("127.0.0.1:8421") == text.count("127.0.0.1:8422") == 1
    config.write_text(text.replace("127.0.0.1:8421", f"127.0.0.1:{server.port}"))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    unknown = ssl.create_default_context()
    unknown.check_hostname, unknown.verify_mode = False, ssl.CERT_NONE
    url = f"https://localhost:{ports['questions.example.org']}"
    try:
        with httpx.Client(base_url=url, verify=unknown, timeout=20) as client:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                with suppress(httpx.TransportError):
                    client.get("/v1/health")
                    break
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def test_what_the_page_says_works(proxied: httpx.Client, server: Server) -> None:
    assert proxied.get("/v1/health").status_code == 200
    assert proxied.get("/v1/me").status_code == 401
    proxied.headers["Authorization"] = f"Bearer {server.tokens['trainer']}"
    assert proxied.get("/v1/me").json()["role"] == "trainer"
    assert proxied.get("/").headers["content-type"].startswith("text/html")


def test_a_body_that_is_too_large_ends_at_the_proxy(proxied: httpx.Client, server: Server) -> None:
    proxied.headers["Authorization"] = f"Bearer {server.tokens['trainer']}"
    for length in (5 << 20, 64 << 20):
        # one that refuses early may close the connection while the rest is sent
        with suppress(httpx.WriteError, httpx.ReadError):
            said = proxied.put("/v1/clips/x.mp4", content=bytes(length))
            assert said.status_code in (413, 502), "Caddy breaks the connection to the queue off"
            assert "why" not in said.text, "it is not the queue that refuses"


def test_events_come_at_once(proxied: httpx.Client, server: Server) -> None:
    with server.client("trainer") as trainer:
        trainer.register(Run("run", "point", "go there"))
        proxied.headers["Authorization"] = f"Bearer {server.tokens['annotator']}"
        with proxied.stream("GET", "/v1/runs/run/events") as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("data:"))
            trainer.enqueue("run", [Question("one", 0, 0)])
            asked = time.monotonic()
            assert '"open":1' in next(line for line in lines if '"open":1' in line.replace(" ", "")).replace(" ", "")
            assert time.monotonic() - asked < 20

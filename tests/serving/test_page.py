"""The labelling page's files over HTTP: open to all, and nothing else is."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from rayrlhf.serving import page
from rayrlhf.serving.page import page_files

FILES = page_files()
SCRIPTS = sorted(name for name in FILES if name.endswith(".js"))
TEXTS = [name for name in FILES if not name.endswith(".png")]
FOLDER = Path(page.__file__).parent / "page"


def test_the_page_is_there_without_a_token(server) -> None:
    for path, name in (("/", "index.html"), *((f"/page/{name}", name) for name in FILES)):
        found = httpx.get(server.url + path)
        assert (found.status_code, found.content) == (200, FILES[name].content)
        assert found.headers["content-type"].partition(";")[0] == FILES[name].media_type
        assert httpx.head(server.url + path).status_code == 200
    kinds = {Path(name).suffix: file.media_type for name, file in FILES.items()}
    assert kinds == {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".png": "image/png"}


def test_headers_keep_others_out(server) -> None:
    headers = httpx.get(server.url).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "media-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


def test_a_browser_that_has_a_file_is_told_so(server) -> None:
    first = httpx.get(f"{server.url}/page/main.js")
    assert first.headers["cache-control"] == "no-cache"
    for known in (first.headers["etag"], f'W/{first.headers["etag"]}, "other"'):
        again = httpx.get(f"{server.url}/page/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    changed = httpx.get(f"{server.url}/page/main.js", headers={"If-None-Match": '"other"'})
    assert changed.content == first.content


@pytest.mark.parametrize(
    "path",
    [
        "/page/none.js",
        "/page/",
        "/page/..%2fpage.py",
        "/page/%2e%2e%2fqueue.py",
        "/page/..%2f..%2fv1%2fme",
        "/page/%2fetc%2fpasswd",
        "/page/main.js%00",
        "/page//v1/me",
        "/page/sub/main.js",
    ],
)
def test_other_names_lead_nowhere(server, path: str) -> None:
    url = httpx.URL(server.url).copy_with(raw_path=path.encode())
    assert httpx.get(url).status_code == 404


def test_all_else_still_wants_a_token(server) -> None:
    for path in ("/v1/me", "/v1/runs", "/v1/clips/" + "0" * 32 + ".mp4", "//v1/me", "/pages", "/page", "/docs"):
        assert httpx.get(server.url + path).status_code == 401, path
    assert httpx.post(f"{server.url}/page/main.js").status_code == 405


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_comes_from_another_host(name: str) -> None:
    text = FILES[name].content.decode()
    assert not re.findall(r"""\w+:\/\/|["'(`]\/\/""", text.replace("${location.origin}", "")), name


def test_nothing_stands_inline() -> None:
    """The policy would forbid it."""
    text = FILES["index.html"].content.decode()
    assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", text)
    for name in SCRIPTS:
        assert not re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", FILES[name].content.decode()
        )


def test_what_the_page_names_is_there() -> None:
    text = FILES["index.html"].content.decode()
    assert set(re.findall(r'"page/([^"]+)"', text)) <= set(FILES)
    ids = set(re.findall(r'\sid="([^"]+)"', text))
    assert len(ids) == len(re.findall(r'\sid="', text)), "an id names one element"
    for name in SCRIPTS:
        script = FILES[name].content.decode()
        assert {found.removeprefix("./") for found in re.findall(r'from "([^"]+)"', script)} <= set(FILES)
        assert set(re.findall(r'(?:byId|copyOf)\("([^"]+)"\)', script)) <= ids, name


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound_and_short(name: str) -> None:
    assert len(FILES[name].content.splitlines()) < 300
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node to check scripts with")
    done = subprocess.run([node, "--check", FOLDER / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

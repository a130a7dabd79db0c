#!/usr/bin/env python
"""Draws the pictures of the labelling page in docs/images/: clips of MetaWorld's drawer, in a real browser.

scripts/page_pictures.py [FOLDER]     FOLDER is docs/images by default; CHROMIUM names the browser
scripts/page_pictures.py FOLDER --as deuteranopia     as people see them who do (Chromium knows protanopia, tritanopia,
                                                      achromatopsia, blurredVision and reducedContrast, too)
"""

import argparse
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import uvicorn
from metaworld.policies import SawyerDrawerOpenV3Policy
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from rayrlhf.config import EnvOptions, QueueOptions
from rayrlhf.envs import make_env
from rayrlhf.envs.clips import Stage
from rayrlhf.preferences.client import QueueClient
from rayrlhf.preferences.store import Accounts, Curves, Database, Question, Run
from rayrlhf.preferences.wire import Doing
from rayrlhf.serving.queue import build_app
from rayrlhf.serving.settings import QueueSettings

RUN = "drawer-open-3"
STEPS = 50
NOISE = (0.0, 0.5, 1.0, 2.0)
SIZE = {"width": 1280, "height": 720}
GUIDELINES = """Look at the drawer first: the further it comes out, the better.

If it stays shut in both clips, choose the one in which the hand comes nearer to the handle.

Jerky movements do not matter."""
PEOPLE = {"chitra": (16, 0.3), "anna": (12, 0.05), "ben": (7, 0.1)}
"""How many answers each of them gives, and how often something else than the learned reward says."""
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def segments(client: QueueClient) -> list[tuple[str, tuple[float, ...]]]:
    """Clips of a practised and of less practised hands, with the reward along them."""
    options = EnvOptions(suite="metaworld", task="drawer-open")
    env, stage, policy = make_env(options, 1, seed=3), Stage(options, seed=3), SawyerDrawerOpenV3Policy()
    rng, found = np.random.default_rng(0), []
    for episode, noise in enumerate(NOISE):
        obs, moments, rewards = env.reset([episode]), [], []
        for _ in range(2 * STEPS):
            moments.append(env.moments()[0])
            action = np.asarray(policy.get_action(obs[0]), np.float32) + rng.normal(0, noise, 4)
            step = env.step(np.clip(action, -1, 1).astype(np.float32)[None])
            obs = step.obs
            rewards.append(float(step.reward[0]))
        for start in (0, STEPS):
            clip = stage.clip(0, episode, np.stack(moments[start : start + STEPS]))
            found.append((client.store_clip(clip), tuple(rewards[start : start + STEPS])))
    return found


def ask(client: QueueClient) -> dict[str, float]:
    """A run with questions about every pair of segments; the clips' rewards in all."""
    overlap = QueueOptions(overlap=2, min_answers=2, max_answers=3, agreement=1.0, settle_seconds=20)
    client.register(Run(RUN, "drawer-open", "The robot opens the drawer.", GUIDELINES, overlap))
    doing = Doing(phase="learning", env_steps=61_200, total_steps=200_000, labels=230, budget=1000)
    client.note(RUN, doing.model_copy(update={"next_questions_at": 65_000}))
    made = segments(client)
    pairs = [(i, j) for i in range(len(made)) for j in range(i + 1, len(made))]
    np.random.default_rng(1).shuffle(pairs)
    names = [f"{RUN}/00012/{i:05d}" for i in range(len(pairs))]
    client.enqueue(RUN, [Question(name, 12, i, ready=False) for i, name in enumerate(names)])
    for name, (left, right) in zip(names, pairs, strict=True):
        client.clips_made(RUN, name, made[left][0], made[right][0])
    drawn = [Curves(n, 4, made[i][1], made[j][1]) for n, (i, j) in zip(names, pairs, strict=True)]
    client.keep_curves(RUN, drawn)
    return {clip: sum(rewards) for clip, rewards in made}


def answer(url: str, token: str, count: int, error: float, sums: dict[str, float], seed: int) -> None:
    """`count` answers of one person, who mostly says what the reward says."""
    rng = np.random.default_rng(seed)
    with QueueClient(url, token) as client:
        for lease in (lease for _ in range(count) for lease in client.lease(RUN)):
            better = sums[str(lease.right_clip)] - sums[str(lease.left_clip)]
            said = "equal" if abs(better) < 1 else "right" if better > 0 else "left"
            said = str(rng.choice(["left", "right", "equal", "skip"])) if rng.random() < error else said
            replays = int(rng.integers(3))
            client.answer(lease.lease, said, seconds=float(rng.gamma(4, 1.2)), replays=replays)  # type: ignore[arg-type]


@contextmanager
def queue() -> Iterator[tuple[str, dict[str, str]]]:
    """A queue on loopback with questions, people and answers: its address, and tokens by name."""
    with TemporaryDirectory() as folder, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        settings = QueueSettings(database=f"{folder}/queue.sqlite", clips=f"{folder}/clips")
        Path(settings.clips).mkdir()
        accounts = Accounts(Database(settings.database))
        roles = dict.fromkeys(PEOPLE, "annotator") | {"tina": "trainer", "ada": "admin"}
        tokens = {name: accounts.add(name, role) for name, role in roles.items()}  # type: ignore[arg-type]
        server = uvicorn.Server(uvicorn.Config(build_app(settings), log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with QueueClient(url, tokens["tina"]) as client:
            sums = ask(client)
        for seed, (name, (count, error)) in enumerate(PEOPLE.items()):
            answer(url, tokens[name], count, error, sums, seed)
        yield url, tokens
        server.should_exit = server.force_exit = True
        thread.join()


def shoot(
    browser: Browser, path: Path, link: str, act: Callable[[Page], None], seen_as: str = "none", **context: object
) -> None:
    """One picture of the page at `link` after `act`, in few colours so that it is small."""
    page = browser.new_context(**{"viewport": SIZE, **context}).new_page()  # type: ignore[arg-type]
    page.context.new_cdp_session(page).send("Emulation.setEmulatedVisionDeficiency", {"type": seen_as})
    page.goto(link)
    act(page)
    page.screenshot(path=path)
    page.context.close()
    few = Image.open(path).convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def seen(page: Page) -> None:
    """A pair is on the screen, and has played a little."""
    page.wait_for_selector("#choose-left[aria-disabled=false]")
    page.wait_for_timeout(700)


def answered(page: Page) -> None:
    """Another pair, after some answers."""
    for key in "120":
        seen(page)
        page.keyboard.press(key)
    seen(page)


def opened(dialog: str) -> Callable[[Page], None]:
    """One of the dialogs."""

    def act(page: Page) -> None:
        seen(page)
        page.click(f"#{dialog}-button")

    return act


def browsed(page: Page) -> None:
    """Cards with their clips."""
    page.wait_for_selector("#cards polyline")
    page.wait_for_timeout(1500)


def looked_at(page: Page) -> None:
    """The people's numbers."""
    page.wait_for_selector("#people-rows tr")


def made(page: Page) -> None:
    """A new account with its link."""
    page.fill("#new-account [name=name]", "dana")
    page.click("#new-account [type=submit]")
    page.wait_for_selector("#new-link")


def waited(page: Page) -> None:
    """Nothing left to answer."""
    page.wait_for_selector("#waiting")
    page.wait_for_timeout(500)


def asked_for_a_token(page: Page) -> None:
    """Whoever comes without a link."""
    page.wait_for_selector("#sign-in-form")


def without_a_run(page: Page) -> None:
    """Nobody has asked anything yet."""
    page.route("**/v1/runs", lambda route: route.fulfill(json=[]))
    page.reload()
    page.wait_for_selector("#no-runs:not([hidden])")


def offline(page: Page) -> None:
    """The connection is lost, and answers wait."""
    seen(page)
    page.context.set_offline(True)
    page.keyboard.press("1")
    seen(page)
    page.keyboard.press("2")
    page.wait_for_function("document.querySelector('#status').textContent.includes('offline')")
    seen(page)


def main(folder: Path, seen_as: str) -> None:
    """All pictures."""
    with queue() as (url, tokens), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        link = {name: f"{url}/#token={token}" for name, token in tokens.items()}
        tablet = {"viewport": {"width": 820, "height": 1180}}
        for name, start, act, context in (
            ("browse", f"{link['tina']}&view=browse", browsed, {}),
            ("browse-dark", f"{link['tina']}&view=browse", browsed, {"color_scheme": "dark"}),
            ("people", f"{link['tina']}&view=people", looked_at, {}),
            ("label", link["anna"], answered, {}),
            ("dark", link["ben"], answered, {"color_scheme": "dark"}),
            ("tablet", link["ben"], answered, tablet),
            ("help", link["anna"], opened("help"), {}),
            ("settings", link["anna"], opened("settings"), {}),
            ("admin", f"{link['ada']}&view=accounts", made, {}),
            ("sign-in", url, asked_for_a_token, {}),
            ("no-runs", link["anna"], without_a_run, {}),
            ("offline", link["anna"], offline, {}),
        ):
            shoot(browser, folder / f"page-{name}.png", start, act, seen_as, **context)
        answer_all(url, tokens["anna"])
        shoot(browser, folder / "page-waiting.png", link["anna"], waited, seen_as)


def answer_all(url: str, token: str) -> None:
    """One person answers whatever is left for them."""
    with QueueClient(url, token) as client:
        while leases := client.lease(RUN, 10):
            for lease in leases:
                client.answer(lease.lease, "equal")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[1] / "docs" / "images")
    parser.add_argument("--as", dest="seen_as", default="none", metavar="DEFICIENCY")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    main(options.folder, options.seen_as)

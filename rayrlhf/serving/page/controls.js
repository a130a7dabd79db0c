// What plays the clips: play, restart, frames, speed, and one bar of time for both.

import { nameButton } from "./buttons.js";
import { byId, figureOf, make } from "./dom.js";

const KEPT = "rayrlhf/speed";
const PARTS = 1000; // of the bar

/** The controls below the clips; they act on one pair at a time. */
export class Controls {
  #pair = null;
  #changed = () => {};
  #root;
  #keys;
  #bar;
  #speed = Number(localStorage.getItem(KEPT)) || 1;
  #resume = false;

  /** Controls in `root` until `signal` says that they end. */
  constructor(root, keys, signal) {
    this.#root = root;
    this.#keys = keys;
    this.#bar = byId("time");
    root.onclick = ({ target }) => {
      const button = target.closest("button");
      if (button?.dataset.speed) this.#setSpeed(Number(button.dataset.speed));
      else if (button) this.act(button.dataset.action);
    };
    this.#bar.oninput = () => this.#scrub();
    this.#bar.onchange = () => this.#letGo();
    this.#bar.onpointerup = () => this.#bar.blur();
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#hold() : this.#letGo()), { signal });
    this.#setSpeed(this.#speed);
  }

  /** A pair's clips with their names, as they stand on the page. */
  frame(pair) {
    const figures = pair.videos.map((video, index) => figureOf(video, index));
    return (pair.element = make("div", { className: "pair" }, ...figures));
  }

  /** Acts on `pair` from now on; `changed` is called whenever it has moved. */
  follow(pair, changed = () => {}) {
    this.#pair?.removeEventListener("tick", this.#show);
    this.#pair?.removeEventListener("loop", this.#show);
    this.#pair = pair;
    this.#changed = changed;
    pair?.setSpeed(this.#speed);
    pair?.addEventListener("tick", this.#show);
    pair?.addEventListener("loop", this.#show);
    this.#show();
  }

  /** Does what a key or a button asks for. */
  act(id) {
    if (!this.#pair) return;
    if (id === "play") this.#pair.toggle();
    if (id === "restart") this.#pair.restart();
    if (id === "back") this.#pair.step(-1);
    if (id === "forward") this.#pair.step(1);
  }

  #scrub() {
    if (!this.#pair) return;
    const wanted = (this.#bar.value / PARTS) * this.#pair.duration;
    this.#hold();
    this.#pair.seek(wanted);
  }

  /** Stops for as long as somebody moves the bar, or looks elsewhere. */
  #hold() {
    this.#resume ||= this.#pair?.playing ?? false;
    this.#pair?.pause();
  }

  #letGo() {
    if (this.#resume) this.#pair?.play();
    this.#resume = false;
  }

  #setSpeed(factor) {
    this.#speed = factor;
    localStorage.setItem(KEPT, factor);
    this.#pair?.setSpeed(factor);
    for (const button of this.#root.querySelectorAll("[data-speed]")) {
      button.setAttribute("aria-pressed", Number(button.dataset.speed) === factor);
    }
  }

  #show = () => {
    const { time = 0, duration = 0, playing = true } = this.#pair ?? {};
    this.#bar.value = duration ? (PARTS * time) / duration : 0;
    this.#bar.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${duration.toFixed(1)} seconds`);
    byId("clock").textContent = `${time.toFixed(1)} / ${duration.toFixed(1)} s`;
    const button = byId("play-button");
    const name = playing ? "Pause" : "Play";
    if (button.dataset.name !== name) nameButton(this.#keys, button, name);
    button.classList.toggle("playing", playing);
    this.#changed();
  };
}

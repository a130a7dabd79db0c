// One answered question: its clips, the learned reward along them, and what people said.

import { patiently } from "./api.js";
import { Curve, scaleOf } from "./curve.js";
import { copyOf, duration, figureOf, make } from "./dom.js";
import { Pair } from "./player.js";

const SAID = { left: "left is better", right: "right is better", equal: "both are equal", skip: "cannot tell" };
const STATUS = { label: "label", skip: "skipped", disputed: "disputed", open: "still open", expired: "expired", test: "test" };

/** A card of the browser. Its clips are loaded when it is first seen, and play while it is. */
export class Card {
  #api;
  #item;
  #pair = null;

  /** `run` is named on it where it is not empty. */
  constructor(api, item, run = "") {
    this.#api = api;
    this.#item = item;
    this.element = copyOf("card");
    const part = (name) => this.element.querySelector(name);
    const status = item.gold ? "test" : item.status;
    part(".badge").textContent = STATUS[status];
    part(".badge").classList.add(status);
    part(".what").textContent = verdict(item);
    const ago = `${duration(Date.now() / 1000 - item.answered_at)} ago`;
    part(".when").textContent = run ? `${run}, ${ago}` : ago;
    part(".when").title = item.query_id;
    part(".votes").append(...item.votes.map(voteLine));
    this.element.setAttribute("aria-label", `Question ${item.query_id}`);
  }

  /** The card came into view, or left it. */
  see(isSeen) {
    if (isSeen && !this.#pair) this.#load();
    else if (isSeen) this.#pair?.play();
    else this.#pair?.pause();
  }

  free() {
    this.#pair?.free();
    this.#pair = null;
  }

  async #load() {
    const { left_clip, right_clip, curves } = this.#item;
    const pair = (this.#pair = new Pair());
    const place = this.element.querySelector(".clips");
    const drawn = this.#draw(curves);
    place.append(...pair.videos.map((video, index) => figureOf(video, index, drawn[index]?.element ?? null)));
    place.onclick = () => pair.toggle();
    pair.addEventListener("tick", () => drawn.forEach((curve) => curve.show(pair.time / pair.duration || 0)));
    try {
      if (left_clip === null || right_clip === null) throw new Error("this question has no clips");
      const wanted = () => this.#pair === pair;
      const blobs = [left_clip, right_clip].map((name) => patiently(() => this.#api.clip(name), wanted));
      await pair.load(await Promise.all(blobs));
      if (wanted()) pair.play();
    } catch (error) {
      place.append(make("p", { className: "small", textContent: `The clips cannot be shown: ${error.message}.` }));
    }
  }

  /** The learned reward along both clips, on one scale; nothing where none was kept. */
  #draw(curves) {
    const note = this.element.querySelector(".reward");
    note.textContent = "No learned reward was kept.";
    if (!curves?.left.length || !curves.right.length) return [];
    const scale = scaleOf(curves.left, curves.right);
    note.textContent = `Learned reward: ${scale.low.toFixed(2)} to ${scale.high.toFixed(2)}`;
    return [curves.left, curves.right].map((values) => new Curve(values, scale));
  }
}

function verdict({ gold, status, choice, target }) {
  if (gold) return `known: ${SAID[choice]}`;
  if (status !== "label") return "";
  const whole = target === 0 || target === 0.5 || target === 1;
  return whole ? SAID[choice] : `${SAID[choice]} (right preferred: ${Math.round(100 * target)} %)`;
}

function voteLine({ annotator, choice, seconds, replays }) {
  const took = seconds > 0 ? `${seconds.toFixed(1)} s` : "";
  const again = replays > 0 ? `played ${replays + 1} times` : "";
  const details = [took, again].filter(Boolean).join(", ");
  return make(
    "li",
    { className: choice },
    make("span", { className: "mark", ariaHidden: "true" }),
    make("strong", { textContent: annotator }),
    make("span", { textContent: SAID[choice] }),
    make("span", { className: "small", textContent: details }),
  );
}

// How far a run is, how well people agree, and what each of them has done.

import { byId, make, number } from "./dom.js";

const AGAIN_SECONDS = 10;
const NUMBERS = {
  answers: "answers", label: "labels", open: "open", unready: "clips being drawn", skip: "skipped",
  disputed: "disputed", expired: "expired",
};

/** The people of one run. */
export class People {
  #api;
  #run;
  #timer;

  constructor({ api, info }) {
    this.#api = api;
    this.#run = info.name;
    this.#look();
    this.#timer = setInterval(() => this.#look(), 1000 * AGAIN_SECONDS);
  }

  close() {
    clearInterval(this.#timer);
    this.#timer = null;
  }

  async #look() {
    const calls = [this.#api.progress, this.#api.people, this.#api.agreement];
    const found = await Promise.all(calls.map((call) => call(this.#run))).catch(() => null); // it looks again soon
    if (found === null || this.#timer === null) return;
    const [progress, people, { krippendorff_alpha: alpha }] = found;
    byId("numbers").replaceChildren(...Object.entries(NUMBERS).map(([key, label]) => tile(progress[key], label)));
    byId("alpha").textContent = alpha === null ? "—" : alpha.toFixed(2);
    byId("alpha-means").textContent = meaning(alpha);
    byId("people-rows").replaceChildren(...people.map(row));
    byId("people-none").hidden = people.length > 0;
  }
}

function tile(value, label) {
  const shown = make("strong", { className: "big", textContent: number(value) });
  return make("div", { className: "card tile" }, shown, make("span", { textContent: label }));
}

function meaning(alpha) {
  const is = "Krippendorff’s alpha: 1 is full agreement, 0 is what chance alone would give.";
  if (alpha === null) return `${is} It needs questions that several people answered.`;
  if (alpha >= 0.8) return `${is} People agree well.`;
  if (alpha >= 0.6) return `${is} People agree fairly; look at where they do not.`;
  return `${is} People often disagree: the sentence or the guidelines may be unclear.`;
}

function row({ name, answers, skips, seconds, gold, same, with_label }) {
  const time = seconds === null ? "—" : `${seconds.toFixed(1)} s`;
  const cells = [number(answers), number(skips), time, share(gold), share(same), share(with_label)];
  const head = make("th", { scope: "row", textContent: name });
  return make("tr", {}, head, ...cells.map((text) => make("td", { textContent: text })));
}

const share = ([right, of]) => (of ? `${right} of ${of} (${Math.round((100 * right) / of)} %)` : "—");

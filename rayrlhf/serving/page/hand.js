// The questions in hand: the one that is shown, and those that come next with their clips ready to play.

import { Problem, patiently } from "./api.js";
import { Pair } from "./player.js";

const WANTED = 3;
const MOST_LEASES = 10; // that the server gives at once
const NEAR = 300; // seconds for which whoever touched the page is taken to be there, while it is on the screen
const IDLE = 5; // seconds after which an empty hand asks again: what others leave makes no news
const INPUTS = ["pointermove", "pointerdown", "keydown"];

/** One question. state: "loading", "ready" or "broken", by its clips. They are fetched once `before` is settled. */
class Question {
  #stop = new AbortController();

  constructor(api, shown, before) {
    this.lease = shown.lease;
    this.instruction = shown.instruction; // null: the run's sentence
    this.pair = new Pair();
    this.state = "loading";
    this.keepUntil(shown.seconds_left);
    this.clips = [shown.left_clip, shown.right_clip];
    this.fetched = this.#fetch(api, this.clips, before);
    this.ready = this.#load();
  }

  keepUntil(seconds) {
    this.endsAt = performance.now() + 1000 * seconds;
  }

  get isOver() {
    return performance.now() > this.endsAt;
  }

  async #fetch(api, names, before) {
    if (names.includes(null)) throw new Error("this question has no clips");
    await Promise.allSettled([before]); // a browser has six connections, and answers want one, too
    const fetchOne = (name) => patiently(() => api.clip(name, this.#stop.signal), () => this.state === "loading");
    return Promise.all(names.map(fetchOne));
  }

  async #load() {
    try {
      await this.pair.load(await this.fetched);
      if (this.state === "loading") this.state = "ready";
    } catch (error) {
      if (this.state === "loading") this.state = "broken";
      this.why = error.message;
    }
  }

  free() {
    this.state = "freed";
    this.#stop.abort();
    this.pair.free();
    this.pair.element?.remove();
  }
}

/**
 * Leases questions and holds them. Events: `change` when the first may be another, `lost` when it was taken away,
 * `failed` with a Problem that does not pass.
 */
export class Hand extends EventTarget {
  #api;
  #run;
  #outbox;
  #given; // leases that are answered, also while the server does not know
  #asking = false;
  #again = false;
  #open = true;
  #lastInput = performance.now();
  #askedAt = 0;
  #timer;

  constructor(api, run, outbox) {
    super();
    this.#api = api;
    this.#run = run;
    this.#outbox = outbox;
    this.#given = outbox.leases;
    this.questions = [];
    this.asked = false; // whether the server has said what there is
    this.away = false; // whether it did not answer when it was last asked
    this.missed = false; // whether it was not asked, since nobody was there
    for (const name of INPUTS) addEventListener(name, this.#noteInput, { passive: true });
    document.addEventListener("visibilitychange", this.#noteInput);
    this.#timer = setInterval(() => this.#renew(), 1000);
  }

  /** The question to answer now, if there is one. */
  get first() {
    return this.questions[0] ?? null;
  }

  /** Takes the first question out, for it is answered; it may come back. */
  takeFirst() {
    const question = this.questions.shift();
    this.#given.add(question.lease);
    this.#changed();
    return question;
  }

  /** A question whose answer was taken back is the first again. */
  putBack(question) {
    this.#given.delete(question.lease);
    this.questions.unshift(question);
    this.#changed();
  }

  /** A question that cannot be answered (any more) leaves. */
  drop(lease) {
    this.#given.add(lease);
    this.#keepOnly((question) => question.lease !== lease);
    this.#changed();
  }

  /** Asks the server for questions until there are enough; also makes the leases of those in hand longer. */
  async fill() {
    this.#again = true;
    if (this.#asking) return;
    this.#asking = true;
    try {
      while (this.#again && this.#open) {
        this.#again = false;
        await patiently(() => this.#askOnce(), () => this.#open);
      }
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (this.#open) this.dispatchEvent(new CustomEvent("failed", { detail: problem }));
    } finally {
      this.#asking = false;
    }
  }

  close() {
    this.#open = false;
    clearInterval(this.#timer);
    for (const name of INPUTS) removeEventListener(name, this.#noteInput);
    document.removeEventListener("visibilitychange", this.#noteInput);
    this.#keepOnly(() => false);
  }

  /** Unless nobody is there: then questions are for others. */
  async #askOnce() {
    this.missed = !this.#isSomeoneThere;
    if (this.missed) return this.dispatchEvent(new Event("change"));
    try {
      await this.#ask();
    } catch (problem) {
      this.away = true;
      if (this.#open) this.dispatchEvent(new Event("change"));
      throw problem;
    }
  }

  async #ask() {
    const held = new Set(this.questions.map(({ lease }) => lease).filter((lease) => !this.#outbox.undoing(lease)));
    const count = Math.min(MOST_LEASES, WANTED + this.#outbox.leases.size);
    const found = await this.#api.lease(this.#run, count);
    if (!this.#open) return;
    const byLease = new Map(found.map((shown) => [shown.lease, shown]));
    const first = this.first;
    this.#keepOnly(({ lease }) => byLease.has(lease) || !held.has(lease) || this.#outbox.undoing(lease));
    for (const question of this.questions) {
      const shown = byLease.get(question.lease);
      if (shown) question.keepUntil(shown.seconds_left);
      byLease.delete(question.lease);
    }
    for (const shown of byLease.values()) {
      if (this.#given.has(shown.lease)) continue;
      this.questions.push(new Question(this.#api, shown, this.questions.at(-2)?.fetched));
    }
    this.asked = true;
    this.away = false;
    this.#askedAt = performance.now();
    if (first && first.state === "freed") this.dispatchEvent(new Event("lost"));
    this.dispatchEvent(new Event("change"));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
    if (this.questions.length < WANTED) this.fill();
  }

  #keepOnly(wanted) {
    for (const question of this.questions) if (!wanted(question)) question.free();
    this.questions = this.questions.filter((question) => question.state !== "freed");
  }

  get #isSomeoneThere() {
    return !document.hidden && performance.now() - this.#lastInput < 1000 * NEAR;
  }

  /** A lease that ran out is taken again while somebody is there; else the question is free for others. */
  #renew() {
    const wanted = this.first ? this.first.isOver : performance.now() - this.#askedAt > 1000 * IDLE;
    if (wanted && this.#isSomeoneThere && !this.#asking) this.fill();
  }

  #noteInput = () => {
    if (document.hidden) return;
    this.#lastInput = performance.now();
    if (this.missed) this.fill();
  };
}

// Answers on their way. Each is on the disk, an entry of localStorage of its own, until the server has it:
// a reload, a lost connection or a restarted server loses none, and its key makes sending it twice harmless.

import { Problem, pauseAfter } from "./api.js";
import { kept } from "./dom.js";

const FOLDER = "rayrlhf/outbox/";

/**
 * The outbox of one account in one queue: the next one at this address may give its numbers to other questions.
 * Events, with what they are about as `detail`:
 * `change`; `stored` {key}; `undone` {lease, shown}; `refused` {item, problem}, for what will never be accepted.
 */
export class Outbox extends EventTarget {
  #api;
  #folder;
  #numbers = new Map(); // of stored answers, by key
  #sending = false;
  #wake = () => {};

  constructor(api, { name, queue }) {
    super();
    this.#api = api;
    this.#folder = `${FOLDER}${queue}/${name}/`;
    this.failures = 0; // since something was last sent
    addEventListener("online", () => this.#wake());
    addEventListener("storage", ({ key, newValue }) => this.#doneElsewhere(key, newValue));
  }

  /** How many answers wait to be sent. */
  get waiting() {
    return this.#items().length;
  }

  /** Leases that are answered here, whether the server knows or not. */
  get leases() {
    const found = new Set();
    for (const item of this.#items()) found[item.kind === "answer" ? "add" : "delete"](item.lease);
    return found;
  }

  /** Whether taking back this lease's answer is still on its way. */
  undoing(lease) {
    return this.#items().some((item) => item.kind === "undo" && item.lease === lease);
  }

  /** Puts an answer; what is sent of it, with its key. */
  answer(lease, choice, seconds, replays) {
    const answer = { key: newKey(), lease, choice, seconds, replays };
    this.#put({ kind: "answer", ...answer, tried: false });
    return answer;
  }

  /** Takes an answer back: out of the outbox where it was never sent, else by asking the server. */
  takeBack(answer) {
    const unsent = this.#items().find((item) => item.key === answer.key);
    if (unsent && !unsent.tried) {
      this.#remove(unsent);
      return;
    }
    this.#put({ kind: "undo", key: newKey(), lease: answer.lease, answer, tried: false });
  }

  /** Sends whatever there is, in order, until nothing is left; comes again for what fails. */
  async send() {
    if (this.#sending) return this.#wake();
    this.#sending = true;
    try {
      for (let next; (next = this.#items()[0]); ) {
        const pause = await this.#sendOne(next);
        if (pause === null) return;
        if (pause > 0) await this.#rest(pause);
      }
    } finally {
      this.#sending = false;
    }
  }

  /** Sends one item. Seconds to wait before the next, or null where the page is at its end. */
  async #sendOne(item) {
    this.#write({ ...item, tried: true }); // from here on the server may have it
    try {
      await (item.kind === "answer" ? this.#sendAnswer(item) : this.#sendUndo(item));
      this.failures = 0;
      this.#remove(item);
      return 0;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.ends) return null;
      if (problem.passes) {
        this.failures += 1;
        this.#tell("change");
        return pauseAfter(this.failures, problem);
      }
      this.#remove(item);
      this.#tell("refused", { item, problem });
      return 0;
    }
  }

  async #sendAnswer({ key, lease, choice, seconds, replays }) {
    const { answer } = await this.#api.answer({ key, lease, choice, seconds, replays });
    this.#numbers.set(key, answer);
    this.#tell("stored", { key });
  }

  async #sendUndo({ answer, lease }) {
    const number = this.#numbers.get(answer.key) ?? (await this.#numberOf(answer));
    if (number === null) return;
    const shown = await this.#api.undo(number);
    this.#tell("undone", { lease, shown });
  }

  /** An answer that another tab sent, or this page before it was loaded anew: sent again, it tells its number. */
  async #numberOf(answer) {
    try {
      return (await this.#api.answer(answer)).answer;
    } catch (problem) {
      if (!(problem instanceof Problem) || problem.passes || problem.ends) throw problem;
      return null; // it was refused, or is taken back: there is nothing to take back
    }
  }

  /** Another tab of this account sends what lies here, too. */
  #doneElsewhere(name, item) {
    if (!name?.startsWith(this.#folder) || item !== null) return;
    this.#tell("stored", { key: name.slice(this.#folder.length) });
    this.#tell("change");
  }

  /** Every item that is whole, in the order in which they came. */
  #items() {
    return Object.keys(localStorage)
      .filter((name) => name.startsWith(this.#folder))
      .map((name) => [name, kept(name)])
      .filter(([name, item]) => item !== null && name === this.#folder + item.key)
      .filter(([, item]) => item.kind === "answer" || item.answer?.key)
      .map(([, item]) => item)
      .sort((one, other) => one.order - other.order);
  }

  #put(item) {
    const last = this.#items().at(-1)?.order ?? 0;
    this.#write({ ...item, order: last + 1 });
    this.#tell("change");
    this.send();
  }

  #write(item) {
    localStorage.setItem(this.#folder + item.key, JSON.stringify(item));
  }

  #remove(item) {
    localStorage.removeItem(this.#folder + item.key);
    this.#tell("change");
  }

  #rest(seconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000 * seconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

// crypto.randomUUID wants https, which a queue in a laboratory's network often has not
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

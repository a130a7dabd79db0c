// What is new in a run, as the server's stream of events tells it.

import { Problem, pauseAfter, sleep } from "./api.js";

/** Listens to a run's events. Event: `news`, whose detail is {open, answers, mine, doing}. */
export class News extends EventTarget {
  #api;
  #run;
  #stop = new AbortController();

  constructor(api, run) {
    super();
    this.#api = api;
    this.#run = run;
    this.#listen();
  }

  close() {
    this.#stop.abort();
  }

  async #listen() {
    for (let failures = 0; !this.#stop.signal.aborted; ) {
      try {
        await this.#stream(() => (failures = 0));
        await sleep(0.5); // it ends by itself after some minutes
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        if (problem.ends || this.#stop.signal.aborted) return;
        failures += 1;
        if (problem.status === 429) await this.#look();
        await sleep(pauseAfter(failures, problem));
      }
    }
  }

  /** One connection, until it ends. */
  async #stream(arrived) {
    const decoder = new TextDecoder();
    let rest = "";
    const take = (piece) => {
      arrived();
      const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) this.#tell(JSON.parse(line.slice(6)));
    };
    await this.#api.events(this.#run, take, this.#stop.signal); // the server says something every second
  }

  /** Where there are too many streams already: looks, instead of being told. */
  async #look() {
    const runs = await this.#api.runs().catch(() => []);
    const info = runs.find((run) => run.name === this.#run);
    if (info && !this.#stop.signal.aborted) this.#tell(info);
  }

  #tell(detail) {
    this.dispatchEvent(new CustomEvent("news", { detail }));
  }
}

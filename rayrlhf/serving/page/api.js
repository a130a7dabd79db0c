// The queue's API: every call carries the token, and every failure is a Problem.

const TIMEOUT = 20_000; // milliseconds: of a call, or without any news of what comes piece by piece
const LONGEST_PAUSE = 8;

/**
 * A call that did not work. status: HTTP's, or 0 where the server could not be reached
 * why: the kind of refusal, as the queue names it; null where another spoke: Ray Serve says 404 while it starts or ends
 */
export class Problem extends Error {
  constructor(status, detail, why = null, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.why = why;
    this.retryAfter = retryAfter;
  }

  /** Whether the same call may work later. */
  get passes() {
    return this.why === null || this.status === 429 || this.status >= 500;
  }

  /** Whether the page is at its end: its token is not valid (any more), or another queue is at this address now. */
  get ends() {
    return this.why === "token" || this.why === "elsewhere";
  }
}

/** Calls on the queue with an account's token. `ended` is told of a problem that ends the page. */
export class Api {
  #token;
  #ended;

  constructor(token, ended) {
    this.#token = token;
    this.#ended = ended;
    this.queue = null; // the one that all calls are meant for, once it is known
  }

  me = () => this.#json("GET", "v1/me");
  runs = () => this.#json("GET", "v1/runs");
  progress = (run) => this.#json("GET", `${ofRun(run)}/progress`);
  people = (run) => this.#json("GET", `${ofRun(run)}/people`);
  agreement = (run) => this.#json("GET", `${ofRun(run)}/agreement`);
  answered = (run, query) => this.#json("GET", `${ofRun(run)}/answered?${new URLSearchParams(query)}`);
  lease = (run, count) => this.#json("POST", `${ofRun(run)}/leases`, { count });
  answer = (said) => this.#json("POST", "v1/answers", said);
  undo = (answer) => this.#json("DELETE", `v1/answers/${answer}`);
  accounts = () => this.#json("GET", "v1/accounts");
  addAccount = (name, role) => this.#json("POST", "v1/accounts", { name, role });
  renewToken = (name) => this.#json("POST", `v1/accounts/${encodeURIComponent(name)}/token`);
  disable = (name) => this.#json("DELETE", `v1/accounts/${encodeURIComponent(name)}`);

  /** A clip's content, unless `stop` comes first. However slowly, it is loaded as long as something comes. */
  async clip(name, stop) {
    const pieces = [];
    const found = await this.#pieces(`v1/clips/${encodeURIComponent(name)}`, (piece) => pieces.push(piece), stop);
    return new Blob(pieces, { type: found.headers.get("Content-Type") ?? "" });
  }

  /** A run's stream of events: `take` gets its bytes until it ends, or `stop` comes. */
  events = (run, take, stop) => this.#pieces(`${ofRun(run)}/events`, take, stop);

  async #json(method, path, body) {
    const found = await this.#fetch(method, path, body, AbortSignal.timeout(TIMEOUT));
    if (found.status === 204) return null;
    return found.json().catch(lost);
  }

  /** A response whose bytes `take` gets as they come. It is cut off where nothing comes for long. */
  async #pieces(path, take, stop = null) {
    const silent = new AbortController();
    const wait = () => setTimeout(() => silent.abort(), TIMEOUT);
    let timer = wait();
    try {
      const signal = stop ? AbortSignal.any([stop, silent.signal]) : silent.signal;
      const found = await this.#fetch("GET", path, undefined, signal);
      const reader = found.body.getReader();
      for (;;) {
        const { done, value } = await reader.read().catch(lost);
        if (done) return found;
        clearTimeout(timer);
        timer = wait();
        take(value);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async #fetch(method, path, body, signal) {
    const headers = { Authorization: `Bearer ${this.#token}` };
    if (this.queue) headers["Rayrlhf-Queue"] = this.queue;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let found;
    try {
      found = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
    } catch {
      throw new Problem(0, "the server cannot be reached");
    }
    if (found.ok) return found;
    const { why = null, detail = `the server says ${found.status}` } = (await found.json().catch(() => null)) ?? {};
    const problem = new Problem(found.status, detail, why, retryAfter(found));
    if (problem.ends) this.#ended(problem);
    throw problem;
  }
}

/** Seconds to wait before try number `failures` + 1, drawn a little, so that not all come at the same moment. */
export function pauseAfter(failures, problem) {
  const seconds = Math.min(LONGEST_PAUSE, 0.25 * 2 ** failures);
  return Math.max(seconds, problem.retryAfter) * (0.8 + 0.4 * Math.random());
}

/** Resolves after some seconds. */
export const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** Makes a call until it works, as long as it may and `wanted` says that it is. */
export async function patiently(call, wanted = () => true) {
  for (let failures = 1; ; failures += 1) {
    try {
      return await call();
    } catch (problem) {
      if (!(problem instanceof Problem) || !problem.passes || !wanted()) throw problem;
      await sleep(pauseAfter(failures, problem));
    }
  }
}

function lost() {
  throw new Problem(0, "the connection was lost");
}

const ofRun = (run) => `v1/runs/${encodeURIComponent(run)}`;
const retryAfter = (found) => Number(found.headers.get("Retry-After")) || 0;

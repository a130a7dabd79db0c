// The label view: shows the first question in hand and takes answers. It never waits for the network.

import { Controls } from "./controls.js";
import { byId, number, setOnce } from "./dom.js";
import { Hand } from "./hand.js";
import { labelOf } from "./keys.js";
import { News } from "./news.js";
import { hideToast, toast } from "./toast.js";
import { Waiting } from "./waiting.js";

const CHOICES = ["left", "right", "equal", "skip"];
const MOST_SECONDS = 86_400; // the longest time that an answer may carry
const MOST_SHOWN = 600; // seconds for which undo is offered
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds
const MOST_BACK = 5; // answers that can be taken back one after the other
const AWAY = "The server cannot be reached just now. Your answers are kept, and this page tries again by itself.";

/** The label view of one run, until it is closed. */
export class Labelling {
  #outbox;
  #api;
  #keys;
  #hand;
  #news;
  #info;
  #unready = 0;
  #shown = null; // the question that is on the screen
  #seenAt = null; // when both of its clips were
  #pressedAt = null; // when the key was pressed that brought it
  #given = []; // {question, answer, endsAt} of what was answered last, to take back
  #undoTimer;
  #waiting = new Waiting();
  #controls;
  #stop = new AbortController();
  #latencies = []; // milliseconds from a key's press until the next pair was seen
  #late = []; // the same of pairs whose clips had not come when the key was pressed

  constructor({ api, outbox, keys, info }) {
    window.rayrlhf = { latencies: this.#latencies, late: this.#late };
    this.#api = api;
    this.#outbox = outbox;
    this.#keys = keys;
    this.#info = info;
    this.#controls = new Controls(byId("controls"), keys, this.#stop.signal);
    this.#listen();
    this.#showTask();
    this.#hand = new Hand(api, info.name, outbox);
    this.#hand.addEventListener("change", () => this.#show());
    this.#hand.addEventListener("lost", () => toast("That question is not needed any more."));
    this.#news = new News(api, info.name);
    this.#news.addEventListener("news", ({ detail }) => this.#hear(detail));
    this.#hand.addEventListener("failed", ({ detail }) => toast(`There are no questions: ${detail.message}.`));
    this.#hand.fill();
    this.#show();
  }

  /** Ends the view; what is to be sent is sent all the same. */
  close() {
    this.#stop.abort();
    this.#news.close();
    this.#hand.close();
    this.#controls.follow(null);
    for (const { question } of this.#given) question.free();
    this.#given = [];
    this.#showUndo();
    hideToast();
  }

  /** Does what a key or a button asks for. at: when it was pressed */
  act(id, at) {
    if (CHOICES.includes(id)) this.#answer(id, at);
    else if (id === "undo") this.#undo();
    else this.#controls.act(id);
  }

  #listen() {
    const { signal } = this.#stop;
    for (const choice of CHOICES) {
      byId(`choose-${choice}`).addEventListener("click", (event) => this.act(choice, event.timeStamp), { signal });
    }
    const undo = byId("undo-button");
    const press = () => {
      if (undo.getAttribute("aria-disabled") === "false") this.#undo();
    };
    undo.addEventListener("click", press, { signal });
    this.#outbox.addEventListener("stored", ({ detail }) => this.#settle(detail.key), { signal });
    this.#outbox.addEventListener("undone", ({ detail }) => this.#undone(detail), { signal });
    this.#outbox.addEventListener("refused", ({ detail }) => this.#refused(detail), { signal });
  }

  #answer(choice, at) {
    if (this.#reason(choice) !== null) return;
    const question = this.#hand.first;
    const { loops, restarts } = question.pair;
    const seconds = this.#seenAt === null ? 0 : (at - this.#seenAt) / 1000;
    const replays = Math.max(0, loops - 1) + restarts;
    const answer = this.#outbox.answer(question.lease, choice, Math.min(Math.max(0, seconds), MOST_SECONDS), replays);
    this.#given.push({ question, answer, endsAt: Infinity });
    if (this.#given.length > MOST_BACK) this.#given.shift().question.free();
    this.#pressedAt = at;
    this.#hand.takeFirst();
    this.#info.mine += 1;
    this.#info.answers += 1;
    this.#showProgress();
    this.#showUndo();
    this.#offerUndo(choice);
  }

  #offerUndo(choice) {
    const seconds = Math.min(this.#info.settle_seconds, MOST_SHOWN);
    const undo = { label: "Undo", keys: this.#keys.names("undo"), run: () => this.#undo() };
    if (seconds > 0) toast(`You said: ${labelOf(choice)}.`, seconds, undo);
  }

  /** Why `choice` is not taken now, in words; null where it is. */
  #reason(choice) {
    const question = this.#hand.first;
    if (question === null) return "There is no question.";
    if (question.state === "broken") return choice === "skip" ? null : `The clips cannot be shown: ${question.why}.`;
    if (this.#seenAt === null) return "The clips are loading.";
    if (this.#info.play_once && question.pair.wholeLoops === 0) return "Please watch both clips to the end once.";
    return null;
  }

  #undo() {
    const last = this.#given.pop();
    if (!last) return toast("There is nothing to take back.", 3);
    this.#outbox.takeBack(last.answer);
    this.#hand.putBack(last.question);
    this.#info.mine -= 1;
    this.#info.answers -= 1;
    this.#showProgress();
    this.#showUndo();
    toast("Taken back. Here is the question again.", 3);
  }

  /** The server has an answer, or will never take it: from now on it can be taken back for some seconds. */
  #settle(key, seconds = this.#info.settle_seconds) {
    const given = this.#given.find(({ answer }) => answer.key === key);
    if (given) given.endsAt = performance.now() + 1000 * seconds;
    this.#showUndo();
  }

  /** Shows whether the last answer can be taken back, and looks again when that ends. */
  #showUndo() {
    clearTimeout(this.#undoTimer);
    const left = (this.#given.at(-1)?.endsAt ?? 0) - performance.now();
    setOnce(byId("undo-button"), "aria-disabled", String(left <= 0));
    if (left > 0 && left < Infinity) {
      this.#undoTimer = setTimeout(() => this.#showUndo(), Math.min(left + 1, LONGEST_TIMER));
    }
  }

  #undone({ lease, shown }) {
    const question = this.#hand.questions.find((each) => each.lease === lease);
    if (question) question.keepUntil(shown.seconds_left);
    else this.#hand.fill();
  }

  /** The server will never take `item`. */
  #refused({ item, problem }) {
    if (item.kind === "answer") this.#settle(item.key, 0);
    if (item.kind === "answer") return toast(`An answer was not needed any more (${problem.message}).`);
    toast("Too late to take that back: training has it already.");
    this.#hand.drop(item.lease);
  }

  #show() {
    const question = this.#hand.first;
    for (const { pair, lease, clips } of this.#hand.questions) {
      if (pair.element) continue;
      byId("pairs").append(this.#controls.frame(pair));
      Object.assign(pair.element.dataset, { lease, left: clips[0], right: clips[1] }); // for programs that answer
    }
    if (question !== this.#shown) this.#change(question);
    const known = this.#hand.asked && !this.#hand.away;
    byId("question").hidden = question === null;
    byId("waiting").hidden = question !== null || !known;
    byId("loading").hidden = question !== null || known;
    byId("loading").textContent = this.#hand.away ? AWAY : "Asking for questions …";
    if (question === null && known) this.#showWaiting();
    this.#showChoices();
  }

  /** Puts another question on the screen. */
  async #change(question) {
    this.#shown?.pair.pause();
    this.#shown?.pair.element?.classList.remove("active");
    this.#shown = question;
    this.#showTask(); // a question may have a sentence of its own
    this.#seenAt = null;
    const pressedAt = this.#pressedAt;
    this.#pressedAt = null;
    this.#controls.follow(null);
    if (question === null) return;
    const inTime = question.state === "ready";
    await question.ready;
    if (question !== this.#shown) return;
    question.pair.element?.classList.add("active");
    this.#controls.follow(question.pair, () => this.#showChoices());
    if (question.state === "ready") {
      const seenAt = await question.pair.start();
      if (question !== this.#shown) return;
      this.#seenAt = seenAt;
      if (pressedAt !== null) (inTime ? this.#latencies : this.#late).push(seenAt - pressedAt);
    }
    this.#showChoices();
  }

  #showChoices() {
    const reasons = CHOICES.map((choice) => this.#reason(choice));
    // not `disabled`, which would take the focus from whoever answers by Tab and Enter
    CHOICES.forEach((choice, index) => {
      setOnce(byId(`choose-${choice}`), "aria-disabled", String(reasons[index] !== null));
    });
    const loading = this.#shown?.state === "ready" && this.#seenAt === null; // for a moment
    const why = loading ? "" : (reasons[0] ?? "");
    if (byId("why").textContent !== why) byId("why").textContent = why;
  }

  #showTask() {
    const sentence = this.#shown?.instruction ?? this.#info.sentence;
    if (byId("sentence").textContent !== sentence) byId("sentence").textContent = sentence;
    byId("guidelines").textContent = this.#info.guidelines || "Choose the clip in which the robot does this better.";
    this.#showProgress();
  }

  #showProgress() {
    const { mine, answers, open, doing } = this.#info;
    byId("mine").textContent = number(mine);
    byId("all").textContent = number(answers);
    byId("open").textContent = number(open);
    byId("labels-row").hidden = !doing.budget;
    byId("labels").textContent = doing.budget ? `${number(doing.labels)} of ${number(doing.budget)}` : "";
    byId("labels-bar").max = doing.budget || 1;
    byId("labels-bar").value = doing.labels ?? 0;
    document.title = open ? `(${number(open)}) ${this.#info.sentence}` : this.#info.sentence;
  }

  /** News from the run: numbers, and maybe questions. */
  #hear(news) {
    // what others answer is no news to who waits: everybody would ask at once
    const more = news.open > this.#info.open || news.doing.phase !== this.#info.doing.phase;
    Object.assign(this.#info, news);
    this.#showProgress();
    if (this.#hand.first === null && more) {
      this.#hand.fill();
      this.#countUnready();
    }
  }

  async #countUnready() {
    const progress = await this.#api.progress(this.#info.name).catch(() => null);
    if (progress) this.#unready = progress.unready;
    if (this.#hand.first === null && this.#hand.asked) this.#showWaiting();
  }

  #showWaiting() {
    this.#waiting.show(this.#info, this.#unready, this.#hand.missed);
  }
}

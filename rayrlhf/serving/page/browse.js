// The browser of what was answered, for those who train.

import { Card } from "./card.js";
import { byId, counted, make } from "./dom.js";

const PAGE = 24;

/** The answered questions of one run, or of several, the newest first, as the filters have them. */
export class Browse {
  #api;
  #run;
  #task;
  #filters = byId("filters");
  #cards = [];
  #last = null; // where the next page goes on
  #asked = 0; // so that an answer to older filters is not shown
  #seen = new IntersectionObserver((entries) => this.#scrolled(entries), { rootMargin: "200px" });

  constructor({ api, info }) {
    this.#api = api;
    this.#run = info.name;
    this.#task = info.task;
    this.#filters.onchange = ({ target }) => {
      if (target.name === "among") this.#listPeople();
      this.#look();
    };
    this.#filters.onsubmit = (event) => event.preventDefault();
    byId("browse-again").onclick = () => this.#look();
    byId("more").onclick = () => this.#more();
    this.#listPeople();
    this.#look();
  }

  close() {
    this.#asked += 1;
    this.#clear();
  }

  async #listPeople() {
    const select = this.#filters.annotator;
    const people = await Promise.all((await this.#runs()).map((run) => this.#api.people(run).catch(() => [])));
    const names = [...new Set(people.flat().map(({ name }) => name))].sort();
    const options = names.map((name) => make("option", { value: name, textContent: name }));
    const chosen = select.value;
    select.replaceChildren(make("option", { value: "", textContent: "anybody" }), ...options);
    select.value = names.includes(chosen) ? chosen : "";
    if (select.value !== chosen) this.#look();
  }

  async #runs() {
    const among = this.#filters.among.value;
    if (among === "run") return [this.#run];
    const all = await this.#api.runs().catch(() => []);
    return all.filter(({ task }) => among === "all" || task === this.#task).map(({ name }) => name);
  }

  #clear() {
    this.#seen.disconnect();
    for (const card of this.#cards) card.free();
    this.#cards = [];
    this.#last = null;
    byId("cards").replaceChildren();
    byId("more").hidden = true;
  }

  #look() {
    this.#clear();
    return this.#more();
  }

  async #more() {
    const asked = (this.#asked += 1);
    byId("browse-note").textContent = "Looking …";
    try {
      const found = await this.#api.answered(this.#run, this.#query());
      if (asked === this.#asked) this.#add(found);
    } catch (problem) {
      if (asked === this.#asked) byId("browse-note").textContent = `That did not work: ${problem.message}.`;
    }
  }

  #query() {
    const { among, annotator, status, age, disagreed } = this.#filters;
    const chosen = { among: among.value, limit: PAGE };
    if (annotator.value) chosen.annotator = annotator.value;
    if (status.value === "gold") chosen.gold = true;
    else if (status.value) chosen.status = status.value;
    if (age.value) chosen.since = Date.now() / 1000 - Number(age.value);
    if (disagreed.checked) chosen.disagreed = true;
    if (this.#last) Object.assign(chosen, { before: this.#last.answered_at, before_id: this.#last.query_id });
    return chosen;
  }

  #add(found) {
    for (const item of found) {
      const card = new Card(this.#api, item, item.run === this.#run ? "" : item.run);
      this.#cards.push(card);
      byId("cards").append(card.element);
      this.#seen.observe(card.element);
    }
    this.#last = found.at(-1) ?? this.#last;
    byId("more").hidden = found.length < PAGE;
    const count = counted(this.#cards.length, "answered question");
    const note = found.length < PAGE ? `${count}.` : `The newest ${count}.`;
    byId("browse-note").textContent = this.#cards.length ? note : "Nothing answered that looks like this.";
  }

  #scrolled(entries) {
    for (const { target, isIntersecting } of entries) {
      this.#cards.find((card) => card.element === target)?.see(isIntersecting);
    }
  }
}

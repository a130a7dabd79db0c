// Who is here, which run and which view they look at.

import { Accounts } from "./accounts.js";
import { Api, patiently, sleep } from "./api.js";
import { Browse } from "./browse.js";
import { byId, make, number, releaseAfterClicks } from "./dom.js";
import { ACTIONS, Keys } from "./keys.js";
import { Labelling } from "./labelling.js";
import { Outbox } from "./outbox.js";
import { People } from "./people.js";
import { setUpSettings, showHelp } from "./settings.js";

const KEPT = "rayrlhf/token";
const RUNS_SECONDS = 15;
const VIEWS = { label: Labelling, browse: Browse, people: People, accounts: Accounts };
const OF_ROLE = { annotator: ["label"], trainer: ["browse", "people"], admin: Object.keys(VIEWS) };
const ENDED =
  "Your token is not valid any more. Ask for a new link, or paste a token here. Answers that wait are kept.";

/** Takes the token out of the address, where others might read it, and keeps it in this browser. */
function takeToken() {
  const place = new URLSearchParams(location.hash.slice(1));
  const given = place.get("token");
  if (given) {
    keepToken(given);
    place.delete("token");
    history.replaceState(null, "", `${location.pathname}${location.search}#${place}`);
  }
  return sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT);
}

function keepToken(token) {
  sessionStorage.setItem(KEPT, token);
  localStorage.setItem(KEPT, token);
}

function forgetToken() {
  if (localStorage.getItem(KEPT) === sessionStorage.getItem(KEPT)) localStorage.removeItem(KEPT);
  sessionStorage.removeItem(KEPT);
}

/** Asks for a token; a valid one starts the page anew. */
function askForToken(why) {
  showOnly("sign-in");
  if (why) byId("sign-in-why").textContent = why;
  byId("sign-in-form").onsubmit = (event) => {
    event.preventDefault();
    keepToken(byId("token").value.trim());
    location.reload();
  };
  byId("token").focus();
}

function showOnly(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  document.body.dataset.view = id;
}

/** What somebody with a valid token sees. */
class Page {
  #api;
  #account;
  #outbox;
  #keys = new Keys();
  #runs = [];
  #view = null; // the one that is open, with its name and its run's
  #closed = false;

  constructor(api, account) {
    this.#api = api;
    this.#account = account;
    this.#outbox = new Outbox(api, account);
    this.#outbox.addEventListener("change", () => this.#showStatus());
  }

  async start() {
    byId("top").hidden = false;
    for (const link of byId("views").children) link.hidden = !this.#allowed.includes(link.dataset.view);
    byId("views").hidden = this.#allowed.length < 2;
    for (const id of ["help-button", "status"]) byId(id).hidden = !this.#labels;
    byId("run").onchange = () => this.#go({ run: byId("run").value });
    addEventListener("hashchange", () => this.#open());
    addEventListener("keydown", (event) => this.#press(event));
    setUpSettings(this.#keys, this.#labels ? ACTIONS : [], this.#account, () => {
      forgetToken();
      location.reload();
    });
    this.#outbox.send();
    this.#showStatus();
    while (!this.#closed) {
      this.#runs = await patiently(this.#api.runs, () => !this.#closed);
      this.#open();
      this.#showRuns();
      await sleep(RUNS_SECONDS);
    }
  }

  /** Ends everything but what is stored. */
  close() {
    this.#closed = true;
    this.#view?.open.close();
    this.#view = null;
    byId("top").hidden = true;
  }

  get #allowed() {
    return OF_ROLE[this.#account.role];
  }

  get #labels() {
    return this.#allowed.includes("label");
  }

  get #place() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  #go(change) {
    location.hash = new URLSearchParams({ ...this.#place, ...change });
  }

  /** Opens the view and the run that the address names, unless they are open. */
  #open() {
    if (this.#closed) return;
    const name = this.#allowed.includes(this.#place.view) ? this.#place.view : this.#allowed[0];
    const info = this.#chosenRun();
    if (this.#view?.name === name && this.#view.run === info?.name) return;
    this.#view?.open.close();
    this.#view = null;
    for (const link of byId("views").children) {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const needsRun = name !== "accounts";
    byId("run").parentElement.hidden = !needsRun || !this.#runs.length;
    showOnly(needsRun && !info ? "no-runs" : name);
    if (needsRun && !info) return;
    document.title = "rayrlhf";
    const parts = { api: this.#api, outbox: this.#outbox, keys: this.#keys, info };
    this.#view = { name, run: info?.name, open: new VIEWS[name](parts) };
    for (const link of byId("views").children) {
      link.href = `#${new URLSearchParams({ view: link.dataset.view, ...(info && { run: info.name }) })}`;
    }
    if (info) byId("run").value = info.name;
  }

  /** The run that the address names; else the one that is open, the newest with questions, or the newest. */
  #chosenRun() {
    const wanted = this.#place.run ?? this.#view?.run;
    return this.#runs.find((run) => run.name === wanted) ?? this.#runs.find((run) => run.open > 0) ?? this.#runs[0];
  }

  #showRuns() {
    const options = this.#runs.map(({ name, task, open }) => {
      const what = task && task !== name ? ` · ${task}` : "";
      return make("option", { value: name, textContent: `${name} (${number(open)} open)${what}` });
    });
    const chosen = this.#view?.run;
    if (document.activeElement === byId("run")) return; // somebody is choosing
    byId("run").replaceChildren(...options);
    if (chosen) byId("run").value = chosen;
  }

  #press(event) {
    const action = this.#keys.actionOf(event);
    if (action === null || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    if (action === "help" && this.#labels) showHelp();
    else this.#view?.open.act?.(action, event.timeStamp);
  }

  #showStatus() {
    const { waiting, failures } = this.#outbox;
    const away = `${waiting} waiting to be sent · offline`;
    byId("status").textContent = waiting === 0 ? "All saved" : failures > 0 ? away : "Saving …";
    byId("status").className = waiting > 0 && failures > 0 ? "away" : "";
  }
}

/** A link that is opened in this very tab changes no more than what follows the `#`. */
function followLinks() {
  if (!new URLSearchParams(location.hash.slice(1)).has("token")) return;
  takeToken();
  location.reload();
}

async function start() {
  const token = takeToken();
  addEventListener("hashchange", followLinks);
  releaseAfterClicks(document);
  if (!token) return askForToken();
  let page = null;
  const api = new Api(token, ({ why }) => {
    page?.close();
    if (why === "token") askForToken(ENDED);
    else location.reload();
  });
  try {
    const me = await patiently(api.me);
    api.queue = me.queue;
    page = new Page(api, me);
    await page.start();
  } catch (problem) {
    if (!problem.ends) throw problem;
  }
}

start();

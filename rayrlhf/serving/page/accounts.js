// Accounts and their links, for admins.

import { byId, make } from "./dom.js";

/** Makes, renews and ends accounts. */
export class Accounts {
  #api;
  #form = byId("new-account");

  constructor({ api }) {
    this.#api = api;
    this.#form.onsubmit = (event) => this.#add(event);
    byId("copy").onclick = () => copyLink();
    this.#list();
  }

  /** A link is not shown again. */
  close() {
    byId("new-link").hidden = true;
    byId("link").value = "";
    byId("account-note").textContent = "";
  }

  #add(event) {
    event.preventDefault();
    const name = this.#form.elements.name.value.trim();
    this.#try(async () => {
      const { token } = await this.#api.addAccount(name, this.#form.elements.role.value);
      this.#form.reset();
      showLink(name, token);
    });
  }

  async #try(change) {
    this.close();
    try {
      await change();
    } catch (problem) {
      byId("account-note").textContent = `That did not work: ${problem.message}.`;
    }
    await this.#list();
  }

  async #list() {
    const accounts = await this.#api.accounts().catch(() => null);
    if (accounts === null) byId("account-note").textContent = "The accounts cannot be listed just now.";
    else byId("account-rows").replaceChildren(...accounts.map((account) => this.#row(account)));
  }

  #row({ name, role, usable }) {
    const renew = make("button", { type: "button", textContent: "New link", onclick: () => this.#renew(name, usable) });
    const end = make("button", { type: "button", textContent: "Disable", onclick: () => this.#disable(name) });
    const head = make("th", { scope: "row", textContent: name });
    const cells = [role, usable ? "active" : "disabled"].map((text) => make("td", { textContent: text }));
    return make("tr", {}, head, ...cells, make("td", { className: "actions" }, renew, usable ? end : null));
  }

  #renew(name, usable) {
    const question = `Make a new link for ${name}? The one before stops working.`;
    if (usable && !confirm(question)) return;
    this.#try(async () => showLink(name, (await this.#api.renewToken(name)).token));
  }

  #disable(name) {
    if (!confirm(`Disable the account of ${name}? Answers stay.`)) return;
    this.#try(() => this.#api.disable(name));
  }
}

function showLink(name, token) {
  byId("link-of").textContent = `The link of ${name}.`;
  byId("link").value = `${location.origin}${location.pathname}#${new URLSearchParams({ token })}`;
  byId("new-link").hidden = false;
  byId("copy").textContent = "Copy";
  byId("copy").focus();
}

async function copyLink() {
  const field = byId("link");
  field.select();
  // without https, which a laboratory's network often lacks, browsers have only the old way
  const copied = navigator.clipboard ? navigator.clipboard.writeText(field.value) : Promise.reject();
  const done = await copied.then(() => true, () => document.execCommand("copy"));
  byId("copy").textContent = done ? "Copied" : "Copy it by hand";
}

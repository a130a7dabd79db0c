// The dialogs: what the keys do, and choosing others.

import { signs, writeKeys } from "./buttons.js";
import { byId, make } from "./dom.js";
import { keyOf } from "./keys.js";

const NOTE = "Choose “Change”, then press the key that you want.";

/** Wires the help and the settings, and writes the keys on the buttons. actions: those that the account has keys for */
export function setUpSettings(keys, actions, account, signOut) {
  byId("account").textContent = `You are ${account.name} (${account.role}).`;
  byId("sign-out").onclick = signOut;
  byId("help-button").onclick = showHelp;
  byId("settings-button").onclick = () => byId("settings").showModal();
  byId("reset-keys").onclick = () => keys.reset();
  for (const part of document.querySelectorAll("#settings .of-keys")) part.hidden = actions.length === 0;
  keys.addEventListener("change", () => write(keys, actions));
  write(keys, actions);
}

/** Shows what there is to know. */
export function showHelp() {
  byId("help").showModal();
}

function write(keys, actions) {
  byId("help-keys").replaceChildren(...actions.map((action) => row(keys, action)));
  byId("settings-keys").replaceChildren(...actions.map((action) => row(keys, action, changeButton(keys, action))));
  writeKeys(keys);
}

function row(keys, { id, label }, ...more) {
  const cells = more.map((element) => make("td", {}, element));
  return make("tr", {}, make("th", { scope: "row", textContent: label }), make("td", {}, ...signs(keys, id)), ...cells);
}

function changeButton(keys, { id, label }) {
  const button = make("button", { type: "button", textContent: "Change", id: `change-${id}` });
  button.setAttribute("aria-label", `Change the key of: ${label}`);
  button.onclick = () => {
    byId("settings-note").textContent = `Press the key for “${label}”, or Escape.`;
    const stop = new AbortController();
    const done = () => {
      stop.abort();
      byId("settings-note").textContent = NOTE;
    };
    button.addEventListener("blur", done, { signal: stop.signal });
    button.addEventListener("keydown", (event) => take(event, keys, id, done), { signal: stop.signal });
  };
  return button;
}

function take(event, keys, id, done) {
  const key = keyOf(event);
  if (event.key !== "Escape" && (key === null || event.ctrlKey || event.altKey || event.metaKey)) return;
  event.preventDefault();
  done();
  if (key === null) return;
  keys.bind(id, key);
  byId(`change-${id}`).focus();
}

// Buttons that a key presses, too: their names and signs tell the keys as they are now.

import { make } from "./dom.js";
import { labelOf } from "./keys.js";

/** The keys of an action as signs. */
export function signs(keys, id) {
  const names = keys.names(id);
  return names.length ? names.map((name) => make("kbd", { textContent: name })) : ["no key"];
}

/** Writes the keys on every button that has one. */
export function writeKeys(keys) {
  for (const place of document.querySelectorAll("[data-keys]")) {
    place.replaceChildren(...signs(keys, place.dataset.keys));
  }
  for (const sign of document.querySelectorAll("kbd[data-key]")) {
    sign.textContent = keys.names(sign.dataset.key)[0] ?? "";
    sign.hidden = sign.textContent === "";
  }
  for (const button of document.querySelectorAll("button[data-action]")) nameButton(keys, button);
}

/** Names a button, with its keys, for whoever points at it or hears it. */
export function nameButton(keys, button, name = button.dataset.name ?? labelOf(button.dataset.action)) {
  const names = keys.names(button.dataset.action);
  button.dataset.name = name;
  button.title = names.length ? `${name} (${names.join(" or ")})` : name;
  button.setAttribute("aria-label", button.title);
}

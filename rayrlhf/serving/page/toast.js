// A short message at the foot of the page, with one thing that can be done about it.

import { byId, make } from "./dom.js";

let timer;

/** Shows a text for some seconds; `action` is {label, keys, run} of a button in it. */
export function toast(text, seconds = 5, action = null) {
  const box = byId("toast");
  clearTimeout(timer);
  const keys = action?.keys?.length ? make("kbd", { textContent: action.keys[0] }) : null;
  box.replaceChildren(make("span", { textContent: text }));
  const pressed = { type: "button", className: "plain", onclick: action?.run };
  if (action) box.append(make("button", pressed, action.label, keys));
  box.classList.add("shown");
  timer = setTimeout(hideToast, 1000 * seconds);
}

/** Takes the message away. */
export function hideToast() {
  clearTimeout(timer);
  byId("toast").classList.remove("shown");
  byId("toast").replaceChildren();
}

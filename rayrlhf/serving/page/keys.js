// Which key does what. People may choose others; their choice is kept in this browser.

import { kept } from "./dom.js";

const KEPT = "rayrlhf/keys";
const NAMES = { arrowleft: "←", arrowright: "→", arrowup: "↑", arrowdown: "↓", space: "Space" };
const RESERVED = "tab enter escape shift control alt altgraph meta capslock dead process".split(" ");
const SCROLLING = ["space", "arrowup", "arrowdown"];
const FIELDS = "input, select, textarea, dialog";

/** What can be done by a key. again: also over and over while the key is held down */
export const ACTIONS = [
  { id: "left", label: "Left is better", keys: ["1", "arrowleft"] },
  { id: "right", label: "Right is better", keys: ["2", "arrowright"] },
  { id: "equal", label: "Both are equal", keys: ["0", "arrowup"] },
  { id: "skip", label: "Cannot tell", keys: ["s", "arrowdown"] },
  { id: "undo", label: "Undo", keys: ["z"] },
  { id: "play", label: "Play or pause", keys: ["space"] },
  { id: "restart", label: "Play from the start", keys: ["r"] },
  { id: "back", label: "One frame back", keys: [","], again: true },
  { id: "forward", label: "One frame forward", keys: ["."], again: true },
  { id: "help", label: "Show this help", keys: ["?"] },
];

/** What an action is called. */
export const labelOf = (id) => ACTIONS.find((action) => action.id === id).label;

/** The keys of every action. Event: `change`. */
export class Keys extends EventTarget {
  #chosen;

  constructor() {
    super();
    const whole = Object.entries(kept(KEPT) ?? {}).filter(([, keys]) => Array.isArray(keys));
    this.#chosen = Object.fromEntries(whole);
  }

  /** The keys of an action. */
  of(id) {
    return this.#chosen[id] ?? ACTIONS.find((action) => action.id === id).keys;
  }

  /** An action's keys as people read them. */
  names(id) {
    return this.of(id).map((key) => NAMES[key] ?? key.toUpperCase());
  }

  /** Gives an action this key alone; whatever had it before loses it. */
  bind(id, key) {
    const others = ACTIONS.filter((action) => action.id !== id && this.of(action.id).includes(key));
    for (const other of others) this.#chosen[other.id] = this.of(other.id).filter((each) => each !== key);
    this.#chosen[id] = [key];
    this.#keep();
  }

  /** The keys as they were at first. */
  reset() {
    this.#chosen = {};
    this.#keep();
  }

  /** What an event of the keyboard asks for: an action's id, or null. */
  actionOf(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || isWithin(event.target, FIELDS)) return null;
    const key = keyOf(event);
    if (event.shiftKey && key in NAMES) return null; // it extends a selection; other keys it makes other signs of
    if (key === "space" && isWithin(event.target, "button, a")) return null; // it presses that
    if (SCROLLING.includes(key) && isWithin(event.target, "[role=region]")) return null;
    const action = ACTIONS.find((each) => this.of(each.id).includes(key));
    return action && (action.again || !event.repeat) ? action.id : null;
  }

  #keep() {
    localStorage.setItem(KEPT, JSON.stringify(this.#chosen));
    this.dispatchEvent(new Event("change"));
  }
}

/** The name of an event's key, or null for one that cannot be chosen. */
export function keyOf(event) {
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  return RESERVED.includes(key) ? null : key;
}

const isWithin = (target, selector) => target instanceof Element && target.closest(selector) !== null;

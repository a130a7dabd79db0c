// Small helpers for what stands on the page. Text only ever goes in as text, never as HTML.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** What this browser keeps under a name; null where that is nothing, or damaged. */
export function kept(name) {
  try {
    const found = JSON.parse(localStorage.getItem(name));
    return typeof found === "object" ? found : null;
  } catch {
    return null;
  }
}

/** A new element with properties and children; strings become text, null is left out. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Sets an attribute, unless it is so already. */
export function setOnce(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** A copy of the template with this id: its first element. */
export const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);

/** A clip with its name, "Left" or "Right", and what stands below it. */
export function figureOf(video, index, below = null) {
  const name = make("figcaption", { textContent: index ? "Right" : "Left" });
  return make("figure", { className: index ? "right" : "left" }, name, video, below);
}

/** A number as people read it. */
export const number = (value) => Math.round(value).toLocaleString("en");

/** "1 question", "2 questions". */
export const counted = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** A length of time in words: "40 seconds", "5 minutes", "3 hours", "2 days". */
export function duration(seconds) {
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (seconds >= 1.5 * size) return counted(Math.round(seconds / size), unit);
  }
  return counted(Math.max(1, Math.round(seconds)), "second");
}

/** Lets go of the focus after a click, so that keys mean the page's actions again; whoever tabs keeps it. */
export function releaseAfterClicks(root) {
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.detail > 0 && button && !button.closest("dialog")) document.activeElement.blur();
  });
  root.addEventListener("change", (event) => {
    if (event.target.matches("select")) event.target.blur();
  });
}

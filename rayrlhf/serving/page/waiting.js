// What is shown while there is no question: what training does, and when the next ones are due.

import { byId, counted, duration, number } from "./dom.js";

const THERE = "There are questions, but you seem to be away: move the pointer or press a key.";
const SHORTEST = 3; // seconds of looking before a pace is spoken of

/** The view that waits. */
export class Waiting {
  #first = null; // {at, steps} of the first news of the pace that is going on

  /** Shows what a run's news say. unready: questions whose clips are being drawn; missed: nobody was there to take any */
  show({ open, doing }, unready, missed) {
    const pace = this.#pace(doing.env_steps);
    byId("waiting-why").textContent = missed && open > 0 ? THERE : why(open, unready);
    byId("waiting-doing").textContent = doing.phase ? `Training is at work: ${doing.phase}.` : "";
    byId("waiting-next").textContent = next(doing, pace);
    const { env_steps: steps = 0, total_steps: total = 0 } = doing;
    byId("waiting-steps").hidden = total === 0;
    byId("waiting-bar").max = total || 1;
    byId("waiting-bar").value = steps;
    byId("waiting-numbers").textContent = `${number(steps)} of ${counted(total, "step")}`;
  }

  /** Steps a second, as observed; null as long as nobody can say. */
  #pace(steps) {
    const at = performance.now() / 1000;
    if (steps === undefined) return null;
    if (this.#first === null || steps < this.#first.steps) this.#first = { at, steps };
    const seconds = at - this.#first.at;
    const gained = steps - this.#first.steps;
    return seconds >= SHORTEST && gained > 0 ? gained / seconds : null;
  }
}

function why(open, unready) {
  if (unready > 0) return `${counted(unready, "question")} on the way: the clips are being drawn.`;
  if (open > 0) return "The open questions are with other people just now, or you have answered them.";
  return "You have answered everything there is. Thank you!";
}

function next(doing, pace) {
  if (doing.next_questions_at === null || doing.next_questions_at === undefined) return "";
  const left = doing.next_questions_at - doing.env_steps;
  if (left <= 0) return "The next questions are due now.";
  const time = pace === null ? "" : ` (about ${duration(left / pace)})`;
  return `The next questions come in about ${counted(left, "step")}${time}.`;
}

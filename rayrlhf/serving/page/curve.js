// The learned reward along a clip, as a curve with a cursor.

import { copyOf } from "./dom.js";

const WIDTH = 100;
const HEIGHT = 40;
const MARGIN = 2;

/** The range of several curves, so that they can be compared: {low, high}. */
export function scaleOf(...curves) {
  const values = curves.flat();
  const low = Math.min(...values);
  const high = Math.max(...values);
  return high > low ? { low, high } : { low: low - 1, high: high + 1 };
}

/** One curve: `element` is its picture. */
export class Curve {
  #cursor;

  constructor(values, { low, high }) {
    this.element = copyOf("curve");
    const height = (value) => HEIGHT - MARGIN - ((HEIGHT - 2 * MARGIN) * (value - low)) / (high - low);
    const step = WIDTH / Math.max(1, values.length - 1);
    const points = values.map((value, index) => `${(index * step).toFixed(2)},${height(value).toFixed(2)}`);
    this.element.querySelector("polyline").setAttribute("points", points.join(" "));
    const zero = this.element.querySelector(".zero");
    if (low <= 0 && high >= 0) for (const end of ["y1", "y2"]) zero.setAttribute(end, height(0));
    else zero.remove();
    this.#cursor = this.element.querySelector(".cursor");
    const sum = values.reduce((total, value) => total + value, 0);
    const range = `${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`;
    this.element.setAttribute("aria-label", `Learned reward: ${range}, in all ${sum.toFixed(1)}`);
    this.show(0);
  }

  /** Puts the cursor at a share of the clip, 0 to 1. */
  show(share) {
    for (const end of ["x1", "x2"]) this.#cursor.setAttribute(end, (WIDTH * share).toFixed(2));
  }
}

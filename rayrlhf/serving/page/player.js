// Two clips side by side, started together and kept in step: one time, one speed, one loop.

import { make } from "./dom.js";

const MOST_APART = 0.08; // seconds, after which one clip is set to the other's time
const USUAL_FRAME = 1 / 30;
const END = 0.001; // a clip that is set to its very end would count as played

/** A pair of muted clips. Events: `tick` whenever the time shown may have changed, `loop` after both have played. */
export class Pair extends EventTarget {
  #urls = [];
  #frame = 0; // seconds between two frames, as seen so far
  #lastFrame = null;
  #whole = true; // nothing of this round was passed over
  #ticking = false;

  constructor() {
    super();
    this.videos = ["Left clip", "Right clip"].map((label) => {
      const video = make("video", { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
      video.setAttribute("aria-label", label);
      video.addEventListener("ended", () => this.#ended());
      video.addEventListener("seeked", () => this.#tell("tick"));
      return video;
    });
    this.playing = false;
    this.loops = 0; // rounds that both clips have played to the end
    this.wholeLoops = 0; // those of which nothing was passed over
    this.restarts = 0;
  }

  /** Loads two blobs; resolves when both can be shown. */
  async load(blobs) {
    await Promise.all(this.videos.map((video, index) => this.#loadOne(video, blobs[index])));
    this.#watchFrames();
  }

  /** Plays from the start; resolves with the moment (as performance.now has it) at which both are seen. */
  async start() {
    const seen = Promise.all(this.videos.map(presented));
    this.#begin();
    return Math.max(...(await seen));
  }

  /** Seconds since the clips' start. */
  get time() {
    return this.videos[0].currentTime;
  }

  /** Seconds that the longer clip takes. */
  get duration() {
    return Math.max(...this.videos.map((video) => video.duration || 0));
  }

  play() {
    this.playing = true;
    if (this.videos.every((video) => video.ended)) return this.#begin();
    for (const video of this.videos) if (!video.ended) video.play().catch(() => {});
    this.#tick();
  }

  pause() {
    this.playing = false;
    for (const video of this.videos) video.pause();
    this.#tell("tick");
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /** Plays again from the start, because somebody wants to. */
  restart() {
    this.restarts += 1;
    this.#begin();
  }

  /** Goes to a time of the clips'. */
  seek(seconds) {
    this.#whole = false;
    for (const video of this.videos) {
      video.currentTime = Math.min(Math.max(0, seconds), Math.max(0, video.duration - END));
    }
    if (this.playing) this.play();
  }

  /** Stops, and goes some frames on or back. */
  step(frames) {
    this.pause();
    const frame = this.#frame || USUAL_FRAME;
    this.seek((Math.floor(this.time / frame + 0.01) + frames + 0.5) * frame);
  }

  /** Plays so many times as fast. */
  setSpeed(factor) {
    for (const video of this.videos) video.playbackRate = video.defaultPlaybackRate = factor;
  }

  /** Frees the clips. */
  free() {
    this.pause();
    for (const video of this.videos) {
      video.removeAttribute("src");
      video.load();
    }
    this.#urls.forEach(URL.revokeObjectURL);
    this.#urls = [];
  }

  #begin() {
    this.#whole = true;
    for (const video of this.videos) video.currentTime = 0;
    this.playing = true;
    for (const video of this.videos) video.play().catch(() => {});
    this.#tick();
  }

  #loadOne(video, blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    return new Promise((resolve, reject) => {
      video.addEventListener("canplaythrough", resolve, { once: true });
      video.addEventListener("error", () => reject(new Error("this browser cannot play the clip")), { once: true });
      video.src = url;
    });
  }

  #ended() {
    if (!this.playing || !this.videos.every((video) => video.ended)) return;
    this.loops += 1;
    if (this.#whole) this.wholeLoops += 1;
    this.#tell("loop");
    this.#begin();
  }

  /** Once a frame while the clips play. */
  #tick() {
    if (this.#ticking) return;
    this.#ticking = true;
    const next = () => {
      this.#ticking = this.playing;
      if (!this.playing) return;
      this.#keepInStep();
      this.#tell("tick");
      requestAnimationFrame(next);
    };
    next();
  }

  #keepInStep() {
    const [left, right] = this.videos;
    const busy = this.videos.some((video) => video.seeking || video.ended);
    if (!busy && Math.abs(left.currentTime - right.currentTime) > MOST_APART) right.currentTime = left.currentTime;
  }

  /** Learns how far apart the frames are from those that are shown while the clips play. */
  #watchFrames() {
    const [video] = this.videos;
    if (!video.requestVideoFrameCallback) return;
    const look = (_, { mediaTime }) => {
      const apart = this.#lastFrame === null ? 0 : mediaTime - this.#lastFrame;
      if (this.playing && apart > END) this.#frame = Math.min(this.#frame || Infinity, apart);
      this.#lastFrame = mediaTime;
      if (this.#urls.length) video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }

  #tell(name) {
    this.dispatchEvent(new Event(name));
  }
}

/** The moment at which a video's next frame is on the screen, as the browser expects it. */
function presented(video) {
  return new Promise((resolve) => {
    const tell = (now, { expectedDisplayTime }) => resolve(Math.max(now, expectedDisplayTime));
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(tell);
    else video.addEventListener("playing", () => resolve(performance.now()), { once: true });
  });
}

/** How long an answer has been awaited, in seconds, and what the page says about it. */

import { find, sentence } from "./site.js";
import { say } from "./status.js";

const SLOW = 8;
const SILENT = 20; // without text, if the server has not said why
const DEAD = 45; // without any sign of life; Gradio sends one every 15 s

export class Wait {
  /** @param {string} name the philosopher's */
  constructor(name) {
    this.name = name;
    this.begun = this.text = this.heard = performance.now();
    this.reason = ""; // why, as the server said
    this.timer = setInterval(() => this.#look(), 1000);
    this.says("thinking");
  }

  says(key, values) {
    this.shown = key;
    say(sentence(key, { name: this.name, ...values }), { unseen: key === "done" });
    find("retry").hidden = key !== "silent";
  }

  /** Shows why the answer takes long, as the server says; it stays until the answer begins. */
  told(text) {
    this.reason = text;
    this.shown = "";
    say(text);
    find("retry").hidden = true; // asking again would lose the place in the queue
  }

  started() {
    if (this.reason || this.shown !== "thinking") this.says("thinking");
    this.reason = "";
    this.text = performance.now();
  }

  wrote() {
    this.text = performance.now();
    this.reason = "";
    if (this.shown !== "writing") this.says("writing");
  }

  end() {
    clearInterval(this.timer);
    find("elapsed").textContent = "";
    find("retry").hidden = true;
  }

  #look() {
    const now = performance.now();
    const seconds = (since) => Math.floor((now - since) / 1000);
    const waited = seconds(this.shown === "writing" ? this.text : this.begun);
    find("elapsed").textContent = waited < SLOW ? "" : duration(waited);
    if (seconds(this.heard) >= DEAD || (!this.reason && seconds(this.text) >= SILENT)) {
      if (this.shown !== "silent") this.says("silent");
    } else if (!this.reason && this.shown === "thinking" && waited >= SLOW) this.says("slow");
  }
}

/** @param {number} seconds */
export function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  return minutes ? `${minutes}\u00a0min\u00a0${String(seconds % 60).padStart(2, "0")}` : `${seconds}\u00a0s`;
}

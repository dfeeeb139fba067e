/** The course of an answer: asking, showing what comes, stopping, and how it ends. */

import { ask, Refused } from "./gradio.js";
import { settle } from "./memory.js";
import { sentence, site } from "./site.js";
import { complain, say } from "./status.js";
import { Wait } from "./wait.js";

export class Course {
  /** @param {(question: string) => boolean} giveBack takes back a refused question; false if it cannot */
  constructor(memory, talk, giveBack) {
    Object.assign(this, { memory, talk, giveBack, busy: false, over: null });
  }

  /** Asks the last question of the thread; resolves when its answer is whole, stopped or failed. */
  begin(exchange, earlier) {
    this.busy = true;
    this.stopping = new AbortController();
    return (this.over = this.#run(exchange, earlier));
  }

  stop() {
    if (this.busy) this.stopping.abort();
  }

  async #run(exchange, earlier) {
    const { philosopher } = this.memory.kept;
    const { signal } = this.stopping;
    const wait = new Wait(site.people[philosopher].name);
    complain("");
    this.talk.grow();
    const inputs = { user_message: exchange.question, philosopher, rag_context: exchange.passages, history: earlier };
    try {
      await ask(site.endpoint, inputs, signal, this.#listeners(exchange, wait, signal));
      settle(exchange, "done");
      wait.says("done");
    } catch (error) {
      this.#failed(exchange, signal.aborted ? null : error);
    }
    wait.end();
    this.busy = false;
    this.memory.save();
    if (this.memory.thread.includes(exchange)) this.talk.grow();
    else this.talk.drop();
  }

  #listeners(exchange, wait, signal) {
    const listeners = {
      heard: () => (wait.heard = performance.now()),
      queued: (rank) => rank > 0 && wait.told(sentence("queued", { rank: rank === 1 ? "une question" : `${rank} questions` })),
      started: () => wait.started(),
      told(code, text) {
        if (code === "COLD_START" || code === "BUSY") wait.told(text);
        else exchange.notes.push(code);
      },
      text: (text) => {
        wait.wrote();
        exchange.answer = text;
        this.talk.grow();
      },
    };
    const unlessStopped = ([key, listener]) => [key, (...values) => signal.aborted || listener(...values)];
    return Object.fromEntries(Object.entries(listeners).map(unlessStopped));
  }

  /** Shows a notice, never as the philosopher's words; what has come of the answer stays, or the former answer. */
  #failed(exchange, error) {
    const unanswered = !exchange.answer && !exchange.former;
    settle(exchange, error ? "failed" : "stopped");
    say(error ? "" : sentence("stopped"));
    if (!error) return;
    const code = error instanceof Refused ? error.code : "OTHER";
    complain(site.errors[code] ?? site.errors.OTHER);
    if (code === "BAD_INPUT" && unanswered && this.giveBack(exchange.question)) this.memory.thread.pop();
  }
}

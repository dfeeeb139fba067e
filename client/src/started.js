/**
 * Answers of hosts that end one when its reader leaves: the process that started it goes on reading, and keeps what has
 * come. Where functions share no process, the next poll does not find the answer.
 */

import { randomUUID } from "node:crypto";
import { SNBError } from "./error.cjs";

const KEPT = 30 * 60_000; // ms for which an answer that ended can still be read: as long as its handle is valid

export class Started {
  #answers = new Map();

  /**
   * Reads an answer to its end in the background; returns its id at once.
   *
   * @param {AsyncGenerator<string>} source yields the text and returns metrics
   * @param {AbortController} stop ends it
   */
  read(source, stop) {
    const id = randomUUID();
    const answer = { text: "", stop };
    this.#answers.set(id, answer);
    answer.ended = (async () => {
      for (;;) {
        const { value, done } = await source.next();
        if (done) return (answer.metrics = value);
        answer.text += value;
      }
    })()
      .catch((error) => (answer.error = error))
      .finally(() => setTimeout(() => this.#answers.delete(id), KEPT).unref());
    return id;
  }

  /** What there is of an answer after at most `patience` ms. */
  async look(id, patience) {
    const answer = this.#answers.get(id);
    if (!answer) throw new SNBError("BACKEND_FAILED", "the answer was started by another process");
    let timer;
    await Promise.race([answer.ended, new Promise((resolve) => (timer = setTimeout(resolve, patience)))]);
    clearTimeout(timer);
    const { text, metrics, error, stop } = answer;
    if (stop.signal.aborted) return { status: "canceled", text };
    if (error) throw error;
    return metrics ? { status: "succeeded", text, metrics } : { status: "processing", text };
  }

  cancel(id) {
    this.#answers.get(id)?.stop.abort(new SNBError("CANCELED", "the caller left"));
  }
}

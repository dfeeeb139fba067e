/**
 * The conversations of this tab, one with each philosopher, and the passages.
 *
 * In sessionStorage: a reload keeps them, another tab or visitor has no part in them, and closing the tab ends them.
 */

const KEY = "conversations";

/** @typedef {{question: string, answer: string, state: "asked" | "done" | "stopped" | "failed"}} Exchange */

export class Memory {
  constructor() {
    this.kept = { philosopher: "spinoza", context: "", threads: {} };
    try {
      Object.assign(this.kept, JSON.parse(sessionStorage.getItem(KEY)));
    } catch {
      // a browser that keeps nothing, as inside a frame with third-party storage off: then a reload forgets
    }
    for (const thread of Object.values(this.kept.threads)) for (const exchange of thread) settled(exchange);
  }

  /** @returns {Exchange[]} */
  thread(philosopher = this.kept.philosopher) {
    return (this.kept.threads[philosopher] ??= []);
  }

  clear() {
    this.kept.threads[this.kept.philosopher] = [];
    this.save();
  }

  save() {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(this.kept));
    } catch {
      // as above
    }
  }
}

/** An exchange that a reload cut short. */
function settled(exchange) {
  if (exchange.state === "asked") exchange.state = exchange.answer ? "stopped" : "failed";
}

/** What the philosopher is told of earlier exchanges: those that he answered, and no more than a model can hold. */
export function history(exchanges) {
  const answered = exchanges.filter(({ answer }) => answer).slice(-40);
  return answered.flatMap(({ question, answer }) => [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ]);
}

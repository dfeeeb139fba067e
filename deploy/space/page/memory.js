/**
 * What this tab keeps: a conversation and passages for each philosopher, and the question that is being written.
 *
 * In sessionStorage: a reload keeps them, another tab or visitor has no part in them, and closing the tab ends them.
 */

const KEY = "trois-philosophes";

/**
 * @typedef {{question: string, answer: string, state: "asked" | "done" | "stopped" | "failed", notes: string[],
 *   passages: string, at: number, former?: object}} Exchange
 * `notes` are codes of what the answer is worth; `former` is the answer before, until a new one is there.
 */

export class Memory {
  constructor() {
    const empty = { threads: {}, passages: {}, cleared: {} };
    this.kept = { philosopher: "spinoza", draft: "", link: "", lesson: null, large: false, ...empty };
    try {
      Object.assign(this.kept, JSON.parse(sessionStorage.getItem(KEY)));
    } catch {
      // a browser that keeps nothing, as inside a frame with third-party storage off: then a reload forgets
    }
    for (const thread of Object.values(this.kept.threads)) for (const exchange of thread) settle(exchange, "failed");
  }

  /** @returns {Exchange[]} */
  get thread() {
    return (this.kept.threads[this.kept.philosopher] ??= []);
  }

  get passages() {
    return this.kept.passages[this.kept.philosopher] ?? "";
  }

  set passages(text) {
    this.kept.passages[this.kept.philosopher] = text;
  }

  /** Whether there is a conversation that can be restored. */
  get cleared() {
    return this.kept.cleared[this.kept.philosopher];
  }

  clear() {
    const { philosopher, lesson } = this.kept;
    this.kept.cleared[philosopher] = { thread: this.thread, passages: this.passages };
    this.kept.threads[philosopher] = [];
    this.passages = lesson?.philosopher === philosopher ? lesson.passages : "";
    this.save();
  }

  restore() {
    this.kept.threads[this.kept.philosopher] = this.cleared.thread;
    this.passages = this.cleared.passages;
    this.forget();
  }

  /** There is nothing to restore any more. */
  forget() {
    delete this.kept.cleared[this.kept.philosopher];
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

/** Makes room for another answer; the one there is comes back if none comes. */
export function reopen(exchange, passages) {
  const { answer, state, notes, passages: given, at } = exchange;
  if (answer) exchange.former = { answer, state, notes, passages: given, at };
  Object.assign(exchange, { answer: "", state: "asked", notes: [], passages, at: Date.now() });
}

/** Ends an exchange that is under way as `done`, `stopped` by its reader, or `failed`. */
export function settle(exchange, how) {
  if (exchange.state !== "asked") return;
  const { former, answer } = exchange;
  delete exchange.former;
  exchange.state = how === "failed" && answer ? "stopped" : how === "stopped" && !answer ? "failed" : how;
  if (former && how !== "done" && (how === "failed" || !answer)) Object.assign(exchange, former);
}

/** What the philosopher is told of earlier exchanges: those that he answered, and no more than a model can hold. */
export function history(exchanges) {
  const answered = exchanges.filter(({ answer }) => answer).slice(-40);
  return answered.flatMap(({ question, answer }) => [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ]);
}

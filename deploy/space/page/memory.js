/**
 * What this tab keeps: a conversation and passages for each philosopher, and the question being written.
 *
 * They are in sessionStorage: a reload keeps them, no other tab or visitor sees them, and closing the tab deletes them.
 */

const KEY = "trois-philosophes";

/**
 * @typedef {{question: string, answer: string, state: "asked" | "done" | "stopped" | "failed", notes: string[],
 *   passages: string, at: number, former?: object}} Exchange
 * `notes` are codes of notes on the answer; `former` is the previous answer, until a new one is complete.
 */

export class Memory {
  constructor() {
    const empty = { threads: {}, passages: {}, cleared: {} };
    this.kept = { philosopher: "spinoza", draft: "", link: "", lesson: null, large: false, ...empty };
    try {
      Object.assign(this.kept, JSON.parse(sessionStorage.getItem(KEY)));
    } catch {
      // no storage, as inside a frame with third-party storage off: a reload then forgets
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

  /** The conversation that can be restored, with its passages; undefined if there is none. */
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

  /** Drops the conversation that could be restored. */
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

/** Makes room for another answer; the present one comes back if that fails. */
export function reopen(exchange, passages) {
  const { answer, state, notes, passages: given, at } = exchange;
  if (answer) exchange.former = { answer, state, notes, passages: given, at };
  Object.assign(exchange, { answer: "", state: "asked", notes: [], passages, at: Date.now() });
}

/** Ends an exchange in progress as `done` or, if it was stopped or failed, as `stopped` with some text and `failed` without. */
export function settle(exchange, how) {
  if (exchange.state !== "asked") return;
  const { former, answer } = exchange;
  delete exchange.former;
  exchange.state = how === "failed" && answer ? "stopped" : how === "stopped" && !answer ? "failed" : how;
  if (former && how !== "done" && (how === "failed" || !answer)) Object.assign(exchange, former);
}

/** The history to send: the exchanges that have an answer, and no more than a model can hold. */
export function history(exchanges) {
  const answered = exchanges.filter(({ answer }) => answer).slice(-40);
  return answered.flatMap(({ question, answer }) => [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ]);
}

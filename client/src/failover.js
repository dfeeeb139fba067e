/** One question, several backends: which is asked, for how long, and when to move on to the next. */

import { SNBError } from "./error.cjs";
import { configuredTimeout } from "./inputs.js";
import { backoff, bounded, sleep } from "./wait.js";

const TIMEOUT = 55_000; // ms; a Netlify function has 60 s
const BUSY_BUDGET = 4000; // ms for which a full server is retried while another backend could answer
export const FINAL = ["BAD_INPUT", "CANCELED"]; // another backend would not help
export const WAITING = { COLD_START: "starting", BUSY: "queued" }; // it may answer later; the question's status until then
const REST = { first: 10_000, longest: 60_000 }; // ms for which a failed backend is asked last
const SILENCE = 10_000; // ms without a further piece of an answer after which another backend is asked instead
const MARGIN = 1500; // ms by which the endpoint's deadline comes before ours
const LEAST = 500; // ms that must be left for another round

const resting = new Map(); // name of a backend that just failed → { until, failures }

/**
 * Yields the answer's text as it comes and returns `{text, backend, metrics, attempts}`.
 *
 * Backends are asked in order; each has its share of the time left to send its first text. While any is starting or full,
 * they are retried, none sooner than it asked for. Once text has been yielded, no other backend is asked unless there is an
 * `options.onRestart` to call when the text starts over.
 *
 * @throws {SNBError} with `attempts`
 */
export async function* answer(inputs, backends, options) {
  const end = Date.now() + (options.timeoutMs ?? configuredTimeout(TIMEOUT));
  const attempts = [];
  const due = new Map(); // name of a backend that did not answer → { at, tries, waiting }
  const caller = bounded(options.signal);
  const state = { attempts, due, options, caller: caller.signal, left: () => end - Date.now(), shown: false, stale: false };
  try {
    for (;;) {
      const { candidates, well } = inOrder(backends);
      for (const [index, backend] of candidates.entries()) {
        if (due.get(backend.name)?.at > Date.now()) continue;
        const others = Math.max(1, well - index);
        const result = yield* attempt(backend, inputs, others, state);
        if (result) return { ...result, backend: backend.name, attempts };
        if (state.left() <= 0) throw failed(attempts, backends);
      }
      const pause = Math.min(...[...due.values()].map(({ waiting, at }) => (waiting ? at - Date.now() : Infinity)));
      if (state.left() < pause + LEAST) throw failed(attempts, backends);
      await sleep(pause, state.caller);
    }
  } catch (error) {
    if (error instanceof SNBError) error.attempts = attempts; // else the caller's own callback threw it
    throw error;
  } finally {
    caller.release();
    report(attempts);
  }
}

/** Asks one backend, and again while it is full; returns its answer, or undefined if the next one is to be asked. */
async function* attempt(backend, inputs, others, state) {
  const { attempts, due, options, left } = state;
  const patience = Date.now() + Math.min(BUSY_BUDGET, left() / others);
  for (let again = false; ; again = true) {
    const began = Date.now();
    const entry = { backend: backend.name, code: "OK", ms: 0 };
    if (again) attempts.pop(); // one entry per backend and round
    attempts.push(entry);
    try {
      const result = yield* ask(backend, inputs, others, state);
      resting.delete(backend.name);
      return result;
    } catch (error) {
      if (!(error instanceof SNBError)) throw error;
      Object.assign(entry, { code: error.code, reason: error.message });
      if (FINAL.includes(error.code)) throw error;
      if (state.shown && !options.onRestart) throw error;
      state.stale = state.shown;
      if (error.code !== "BUSY") rest(backend.name);
      const waiting = error.code in WAITING;
      const tries = due.get(backend.name)?.tries ?? 0;
      const at = Date.now() + (waiting ? backoff(tries, error.retryAfter) : REST.first);
      due.set(backend.name, { at, tries: tries + 1, waiting });
      if (error.code !== "BUSY" || others === 1 || at > patience) return undefined;
      await sleep(at - Date.now(), state.caller);
    } finally {
      entry.ms = Date.now() - began;
    }
  }
}

/** One try: bounded by its share of the time until the first text, then by the time left, and by the caller's signal. */
async function* ask(backend, inputs, others, state) {
  const { options, caller, left } = state;
  const share = left() / others;
  if (caller.aborted) throw caller.reason;
  const stop = new AbortController();
  let status = "asked";
  const give = (code, message) => () => stop.abort(new SNBError(code, message));
  // Called by both timers: with one backend they expire together, and either may fire first.
  const cold = give("COLD_START", "the model was still being loaded when the time was over");
  const over = (message) => (status === "starting" ? cold() : give("TIMEOUT", message)());
  let first = setTimeout(over, share, "no text within the time");
  // For a host that hangs in mid-answer, used only while another backend could still give the whole answer.
  const silent = () => setTimeout(give("TIMEOUT", "the answer stopped coming"), Math.min(SILENCE, share));
  const replaceable = others > 1 && (!options.streaming || options.onRestart);
  const last = setTimeout(over, left(), "the answer was not finished within the time");
  const leave = () => stop.abort(caller.reason);
  caller.addEventListener("abort", leave, { once: true });

  const began = Date.now();
  const margin = Math.min(MARGIN, left() / 5);
  const deadline = began + left() - margin;
  let source;
  let text = "";
  try {
    const opened = await backend.open(stop.signal);
    const deadline_seconds = Math.max(0.2, Math.min(1800, (deadline - Date.now()) / 1000));
    source = opened.ask({ ...inputs, deadline_seconds }, {
      signal: stop.signal,
      caller: options.caller,
      deadline,
      left,
      share: () => began + share - Date.now(),
      streaming: options.streaming,
      cancelable: Boolean(options.signal),
      progress: (now) => (status = now),
    });
    for (;;) {
      if (text && replaceable) first = silent();
      const { value, done } = await source.next();
      if (done) return { text, metrics: value ?? {} };
      clearTimeout(first);
      text += value;
      if (options.streaming) {
        if (state.stale) await options.onRestart();
        state.stale = false;
        state.shown = true;
        yield value;
      }
      // The backend knows no deadline, or began to count after its queue: what has come so far is the answer.
      if (Date.now() > deadline + margin / 2) return { text, metrics: { finish_reason: "deadline" } };
    }
  } finally {
    clearTimeout(first);
    clearTimeout(last);
    caller.removeEventListener("abort", leave);
    stop.abort(new SNBError("CANCELED", "the caller left"));
    await source?.return().catch(() => {});
  }
}

/** The backends in the order to ask them, those that just failed last; `well` counts the others, or all if all failed. */
export function inOrder(backends) {
  const failed = ({ name }) => resting.get(name)?.until > Date.now();
  const well = backends.filter((backend) => !failed(backend));
  return { candidates: [...well, ...backends.filter(failed)], well: well.length || backends.length };
}

/** Has a backend asked last for a while, twice as long each time it fails again after that. */
export function rest(name) {
  const before = resting.get(name);
  if (before?.until > Date.now()) return; // a class that asks together sees one failure, not thirty
  const failures = (before?.failures ?? 0) + 1;
  const pause = Math.min(REST.longest, REST.first * 2 ** (failures - 1));
  resting.set(name, { failures, until: Date.now() + pause });
}

/** The error for all attempts; with one backend its own last error, a timeout only if there is no other. */
export function failed(attempts, backends) {
  const lasts = new Map(attempts.map((entry) => [entry.backend, entry]));
  if (backends.length === 1) {
    const { code, reason } = attempts.findLast((entry) => entry.code !== "TIMEOUT") ?? attempts.at(-1);
    return new SNBError(code, reason.slice(code.length + 2));
  }
  const reasons = [...lasts.values()].map(({ backend, reason }) => `${backend}: ${reason}`);
  return new SNBError("ALL_BACKENDS_FAILED", reasons.join("; "));
}

/** Logs one line per question, without its content. */
function report(attempts) {
  console.info(`snb: ${attempts.map(({ backend, code, ms }) => `${backend} ${code} ${ms} ms`).join(", ") || "not asked"}`);
}

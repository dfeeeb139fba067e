/** Ask now, poll later: for functions that must return in 10 s while a cold start takes minutes. */

import { configuredBackends } from "./backends.js";
import { SNBError } from "./error.cjs";
import { FINAL, WAITING, failed, inOrder, rest } from "./failover.js";
import { checkedInputs, checkedOptions } from "./inputs.js";
import { hashed, key, sealed, unsealed } from "./seal.js";
import { backoff, bounded, limit, sleep } from "./wait.js";

const PATIENCE = 5000; // ms that a poll may take
const START = 9000; // ms that a start may take, of a function's 10 s
const MISSES = 3; // polls in a row that may fail to reach the backend before the answer is given up there
const LEAST = 100; // ms of a poll kept for the answer, however long its backend took to say what it is
const LONGEST_START = 4 * 60_000; // ms that a cold start may take while there is a backend that has not been tried

/** Starts an answer; resolves to a sealed handle, a string that may pass through a browser. */
export async function startSNB(philosopher, ragContext, userMessage, options) {
  options = checkedOptions(options);
  const inputs = checkedInputs(philosopher, ragContext, userMessage, options);
  key(); // before anything is asked and paid for
  const question = { inputs, caller: hashed(options.caller), tried: [], attempts: [] };
  return sealed(await begun(question, options, options.timeoutMs ?? START));
}

/**
 * Resolves to what there is of an answer: `{status, text, handle, backend, metrics?, error?}`, with the handle for the next
 * poll. Statuses: starting, queued, processing, succeeded, failed, canceled.
 */
export async function pollSNB(text, options) {
  options = checkedOptions(options);
  const patience = options.patienceMs ?? PATIENCE;
  const end = Date.now() + patience;
  let handle;
  try {
    handle = unsealed(text);
  } catch (error) {
    return { status: "failed", text: "", handle: text, error: { code: error.code, message: error.message } };
  }
  try {
    const pause = Math.max(0, (handle.next ?? 0) - Date.now());
    if (pause) await sleep(Math.min(patience, pause));
    if (pause > patience) return seen(handle, { status: handle.waiting, text: "" }); // its backend asked to be left alone
    if (!handle.id) handle = await begun(handle, options);
    if (!handle.id) return seen(handle, { status: handle.waiting, text: "" });
    let backend;
    try {
      backend = await opened(handle, options);
    } catch (error) {
      return missed(handle, error);
    }
    const look = await backend.look(handle.id, handle.inputs, { ...handle, patience: Math.max(LEAST, end - Date.now()) });
    if (look.status === "starting" && overdue(handle, options)) return await replaced(handle, backend, look, options);
    return seen({ ...handle, next: look.next, waiting: look.status, misses: 0 }, look);
  } catch (error) {
    return lost(handle, error, options);
  }
}

/** Stops an answer. Canceling one that is over is no error. */
export async function cancelSNB(text, options) {
  options = checkedOptions(options);
  const handle = unsealed(text);
  if (handle.id) await (await opened(handle, options)).cancel(handle.id);
}

/** The result of a poll that did not reach the backend. The answer may be going on there, so it is not given up yet. */
function missed(handle, error) {
  const misses = (handle.misses ?? 0) + 1;
  if (!(error.code in WAITING || ["BACKEND_FAILED", "TIMEOUT"].includes(error.code)) || misses > MISSES) throw error;
  const next = Date.now() + backoff(misses, error.retryAfter);
  return seen({ ...handle, misses, next, waiting: "processing" }, { status: "processing", text: "" });
}

/** The result of a poll that failed: the question waits, moves to another backend if that may help, or has failed. */
async function lost(handle, error, options) {
  if (!(error instanceof SNBError)) throw error;
  if (error.code in WAITING) {
    const waiting = pausing({ ...handle, id: null }, error);
    return seen(waiting, { status: waiting.waiting, text: "" });
  }
  if (handle.backend && ["BACKEND_FAILED", "TIMEOUT", "UNAUTHORIZED"].includes(error.code)) {
    rest(handle.backend);
    try {
      const next = await moved(handle, options, error);
      return seen(next, { status: next.id ? "processing" : next.waiting, text: "" });
    } catch (last) {
      if (!(last instanceof SNBError)) throw last;
      error = last;
    }
  }
  return seen(handle, { status: "failed", text: "", error: { code: error.code, message: error.message } });
}

/** The handle of a question that its backend may take later: when to ask it again (`next`), and its status until then. */
function pausing(handle, { code, retryAfter }) {
  const tries = (handle.tries ?? 0) + 1;
  return { ...handle, tries, next: Date.now() + backoff(tries, retryAfter), waiting: WAITING[code] };
}

/** Starts the question on the next backend that has not been tried. */
function moved(handle, options, error) {
  const entry = { backend: handle.backend, code: error?.code ?? "COLD_START", reason: error?.message ?? "COLD_START: too long" };
  const attempts = [...(handle.attempts ?? []), entry];
  return begun({ ...handle, attempts, tried: [...handle.tried, handle.backend], id: null }, options);
}

/** After a long cold start: moves the question to another backend and cancels the first; if none takes it, waits on. */
async function replaced(handle, backend, look, options) {
  const next = await moved(handle, options).catch((error) => {
    if (!(error instanceof SNBError)) throw error;
  });
  if (!next?.id) return seen({ ...handle, since: Date.now() }, look);
  await backend.cancel(handle.id).catch(() => {});
  return seen(next, { status: "starting", text: "" });
}

/** Starts the question on the first backend that takes it; if none does, the handle waits for a starting or full one. */
async function begun(handle, options, patience = PATIENCE) {
  const { inputs, caller } = handle;
  const all = configuredBackends(options);
  const end = Date.now() + patience;
  const { candidates } = inOrder(all.filter(({ name }) => !handle.tried.includes(name)));
  const attempts = [...handle.attempts];
  let waiting;
  for (const [index, { name, open }] of candidates.entries()) {
    const { signal, release } = bounded(options.signal, (end - Date.now()) / (candidates.length - index));
    const current = { ...handle, backend: name, since: Date.now(), attempts };
    try {
      const id = await (await open(signal)).start(inputs, { caller, signal });
      return { ...current, id, next: undefined, tries: 0 };
    } catch (error) {
      if (!(error instanceof SNBError) || FINAL.includes(error.code)) throw error;
      if (error.code in WAITING) waiting ??= pausing({ ...current, id: null }, error);
      else rest(name);
      attempts.push({ backend: name, code: error.code, reason: error.message });
    } finally {
      release();
    }
  }
  if (waiting) return { ...waiting, attempts: handle.attempts };
  throw failed(attempts.length ? attempts : [{ backend: "none", code: "BACKEND_FAILED", reason: "BACKEND_FAILED: none is left" }], all);
}

/** Opens the backend of a handle, which must still be configured. */
async function opened(handle, options) {
  const backend = configuredBackends(options).find(({ name }) => name === handle.backend);
  if (!backend) throw new SNBError("BAD_INPUT", "the handle's backend is not configured any more");
  return backend.open(limit(PATIENCE));
}

function overdue(handle, options) {
  const others = configuredBackends(options).some(({ name }) => name !== handle.backend && !handle.tried.includes(name));
  return others && Date.now() - handle.since > (options.coldStartMs ?? LONGEST_START);
}

function seen(handle, { status, text, metrics, error }) {
  return { status, text, backend: handle.backend, handle: sealed(handle), ...(metrics && { metrics }), ...(error && { error }) };
}

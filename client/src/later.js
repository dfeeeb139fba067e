/** Ask now, read later: for functions that must return in 10 s while a model takes minutes to wake up. */

import { configuredBackends } from "./backends.js";
import { SNBError } from "./error.cjs";
import { failed, inOrder, rest } from "./failover.js";
import { checkedInputs } from "./inputs.js";
import { hashed, key, sealed, unsealed } from "./seal.js";

const PATIENCE = 5000; // ms that a look may take
const LONGEST_START = 4 * 60_000; // ms that a cold start may take while another backend has not been tried
const WAITING = { COLD_START: "starting", BUSY: "queued" };

/** Resolves to a sealed handle, a text that may pass through a browser. */
export async function startSNB(philosopher, ragContext, userMessage, options = {}) {
  const inputs = checkedInputs(philosopher, ragContext, userMessage, options);
  key(); // before anything is asked and paid for
  return sealed(await begun({ inputs, caller: hashed(options.caller), tried: [], attempts: [] }, options));
}

/**
 * What there is of an answer: `{status, text, handle, backend, metrics?, error?}`, with the handle to ask with the next
 * time. Statuses: starting, queued, processing, succeeded, failed, canceled.
 */
export async function pollSNB(text, options = {}) {
  const patience = options.patienceMs ?? PATIENCE;
  let handle;
  try {
    handle = unsealed(text);
  } catch (error) {
    return { status: "failed", text: "", handle: text, error: { code: error.code, message: error.message } };
  }
  try {
    const current = handle.id ? handle : await begun(handle, options);
    if (!current.id) return seen(current, { status: current.waiting, text: "" });
    const look = await found(current, options).look(current.id, current.inputs, { ...current, patience });
    if (look.status === "starting" && overdue(current, options)) return seen(await moved(current, options), WAKING);
    return seen(current, look);
  } catch (error) {
    return lost(handle, error, options);
  }
}
const WAKING = { status: "starting", text: "" };

/** Stops an answer. To cancel one that is over is no error. */
export async function cancelSNB(text, options = {}) {
  const handle = unsealed(text);
  if (handle.id) await (await found(handle, options).open()).cancel(handle.id);
}

/** A failure that another backend may mend moves the question there; any other is the status `failed`. */
async function lost(handle, error, options) {
  if (!(error instanceof SNBError)) throw error;
  if (WAITING[error.code]) return seen({ ...handle, id: null }, { status: WAITING[error.code], text: "" });
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

/** The question on the next backend that has not been tried. */
function moved(handle, options, error) {
  const entry = { backend: handle.backend, code: error?.code ?? "COLD_START", reason: error?.message ?? "COLD_START: too long" };
  const attempts = [...(handle.attempts ?? []), entry];
  return begun({ ...handle, attempts, tried: [...handle.tried, handle.backend], id: null }, options);
}

/** Starts the question on the first backend that takes it; one that is waking up or full is waited for. */
async function begun(handle, options) {
  const { inputs, caller } = handle;
  const all = configuredBackends(options);
  const { candidates } = inOrder(all.filter(({ name }) => !handle.tried.includes(name)));
  const attempts = [...handle.attempts];
  let waiting;
  for (const { name, open, forget } of candidates) {
    const next = { ...handle, backend: name, since: Date.now(), attempts };
    const start = async () => (await open(AbortSignal.timeout(PATIENCE))).start(inputs, { caller });
    try {
      const id = await start().catch((error) => {
        if (error.gone && forget()) return start(); // it may be of the other kind by now
        throw error;
      });
      return { ...next, id, waiting: undefined };
    } catch (error) {
      if (!(error instanceof SNBError) && error.name !== "TimeoutError") throw error;
      if (error.code === "BAD_INPUT") throw error;
      if (WAITING[error.code]) waiting ??= { ...next, id: null, waiting: WAITING[error.code] };
      else rest(name);
      attempts.push({ backend: name, code: error.code ?? "TIMEOUT", reason: error.message });
    }
  }
  if (waiting) return { ...waiting, attempts: handle.attempts };
  throw failed(attempts.length ? attempts : [{ backend: "none", code: "BACKEND_FAILED", reason: "BACKEND_FAILED: none is left" }], all);
}

/** The backend of a handle, which has to be configured still. */
function found(handle, options) {
  const backend = configuredBackends(options).find(({ name }) => name === handle.backend);
  if (!backend) throw new SNBError("BAD_INPUT", "the handle's backend is not configured any more");
  return {
    look: async (...args) => {
      try {
        return await (await backend.open(AbortSignal.timeout(PATIENCE))).look(...args);
      } catch (error) {
        if (error.gone) backend.forget();
        throw error;
      }
    },
    open: () => backend.open(AbortSignal.timeout(PATIENCE)),
  };
}

function overdue(handle, options) {
  const others = configuredBackends(options).some(({ name }) => name !== handle.backend && !handle.tried.includes(name));
  return others && Date.now() - handle.since > (options.coldStartMs ?? LONGEST_START);
}

function seen(handle, { status, text, metrics, error }) {
  return { status, text, backend: handle.backend, handle: sealed(handle), ...(metrics && { metrics }), ...(error && { error }) };
}

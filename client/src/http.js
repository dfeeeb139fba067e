/** `fetch`, with failures told apart. No message holds a prompt, a key, or what a server wrote of either. */

import { SNBError } from "./error.cjs";

/** Sends a request; resolves to a response that is 2xx, or rejects with an SNBError, that of `refusal`. */
export async function send(url, init = {}, refusal = refused) {
  let response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    throw broken(error, init.signal);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The JSON of a request's response; a page of HTML is a failed backend. */
export async function json(url, init = {}) {
  const response = await send(url, init);
  try {
    return await response.json();
  } catch (error) {
    if (init.signal?.aborted) throw init.signal.reason;
    throw new SNBError("BACKEND_FAILED", "the host answered with something that is not JSON", { lost: true });
  }
}

/** What an event says; half an event of a host that broke down is a failed backend. */
export function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new SNBError("BACKEND_FAILED", "the host sent an event that is not JSON", { lost: true });
  }
}

/** Reads a body; a connection that breaks is an SNBError. */
export async function* bytes(response, signal) {
  try {
    yield* response.body;
  } catch (error) {
    throw broken(error, signal);
  }
}

/** An SNBError for what `fetch` threw. */
export function broken(error, signal) {
  if (signal?.aborted) return signal.reason;
  if (error instanceof SNBError) return error;
  const code = error?.cause?.code ?? error?.code ?? "network error";
  const unreached = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"].includes(code);
  return new SNBError("BACKEND_FAILED", `the connection failed (${code})`, { lost: !unreached, gone: unreached });
}

/** An SNBError for a response that is not 2xx. */
export async function refused(response) {
  const body = await response.json().catch(() => ({}));
  const { status } = response;
  const retryAfter = milliseconds(response.headers.get("retry-after"));
  if (/version/i.test(body.title)) return new SNBError("BACKEND_FAILED", "Replicate has no such version of the model");
  if (status === 400 || status === 422) return new SNBError("BAD_INPUT", `the server refused ${named(body)}`);
  if (status === 401 || status === 403) {
    return new SNBError("UNAUTHORIZED", `the server refused the token or key (${status}): check it`);
  }
  if (status === 409 || status === 429) return new SNBError("BUSY", `the server is full (${status})`, { retryAfter });
  // Until setup is over Cog does not know that the model streams, and answers 406 to who asks for events.
  if (status === 406 || (status === 503 && /setup/i.test(String(body.error ?? "")))) {
    return new SNBError("COLD_START", "the model is being loaded", { retryAfter });
  }
  const meaning = { 402: "billing", 404: "nothing there", 524: "a proxy gave up waiting" }[status];
  const details = { retryAfter, gone: status === 404 };
  return new SNBError("BACKEND_FAILED", `the server answered ${status}${meaning ? ` (${meaning})` : ""}`, details);
}

/** The inputs that a 422 names; their values, which it may repeat, are left out. */
function named(body) {
  const faults = Array.isArray(body.detail)
    ? body.detail.map((fault) => fault?.loc?.at?.(-1)) // Cog
    : [...String(body.detail ?? "").matchAll(/^- input\.(\w+):/gm)].map(([, name]) => name); // Replicate
  const names = faults.filter((name) => /^\w+$/.test(String(name)));
  return names.length ? `the input ${names.join(", ")}` : "an input";
}

/** `Retry-After`, in seconds or as a date: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after */
export function milliseconds(retryAfter) {
  if (!retryAfter) return undefined;
  const seconds = Number(retryAfter);
  const wait = Number.isNaN(seconds) ? Date.parse(retryAfter) - Date.now() : 1000 * seconds;
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}

/** The header that carries a key or token, where there is one. */
export const bearer = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** `fetch`, with an SNBError for each kind of failure. No message holds a prompt, a key, or a server's words about either. */

import { SNBError } from "./error.cjs";

/** A new connection for each question to a host paid by the question: one lost on a stale connection might be paid for twice. */
export const ALONE = { Connection: "close" };

/**
 * Sends a request; resolves to a 2xx response, and rejects any other with the SNBError that `refusal` makes of it.
 *
 * A lost request is sent once more if it is `free` of charge: the host may have closed the connection while it was idle.
 */
export async function send(url, init = {}, { refusal = refused, free = !init.method } = {}) {
  const response = await exchange(url, init).catch((error) => {
    if (error.lost && free) return exchange(url, init);
    throw error;
  });
  if (!response.ok) throw await refusal(response, init);
  return response;
}

/** `fetch`, but a redirect that would turn a POST into a GET, and so lose the question, is an error. */
export async function exchange(url, init) {
  try {
    if (init.method !== "POST") return await fetch(url, init);
    const response = await fetch(url, { ...init, redirect: "manual" });
    if ([307, 308].includes(response.status)) return await fetch(url, init);
    const location = response.status < 400 && response.headers.get("location");
    if (!location) return response;
    const { origin, pathname } = new URL(location, url);
    const sentence = `the address redirects (${response.status}) to ${origin}${pathname}: write the one that answers itself`;
    throw new SNBError("BACKEND_FAILED", sentence);
  } catch (error) {
    throw broken(error, init.signal);
  }
}

/** Resolves to the JSON of a response as an object, {} for null; anything else, such as HTML, is BACKEND_FAILED. */
export async function json(url, init = {}, options = {}) {
  const response = await send(url, init, options);
  try {
    return Object(await response.json());
  } catch (error) {
    if (init.signal?.aborted) throw init.signal.reason;
    throw new SNBError("BACKEND_FAILED", "the host answered with something that is not JSON", { lost: true });
  }
}

/** The JSON of an event as an object; half an event, from a host that broke down, is BACKEND_FAILED. */
export function parsed(data) {
  try {
    return Object(JSON.parse(data));
  } catch {
    throw new SNBError("BACKEND_FAILED", "the host sent an event that is not JSON", { lost: true });
  }
}

/** Yields the chunks of a body; throws an SNBError when the connection breaks. */
export async function* bytes(response, signal) {
  try {
    yield* response.body;
  } catch (error) {
    throw broken(error, signal);
  }
}

/** The SNBError for what `fetch` threw; the signal's reason if it was aborted. */
export function broken(error, signal) {
  if (signal?.aborted) return signal.reason;
  if (error instanceof SNBError) return error;
  const code = error?.cause?.code ?? error?.code ?? "network error";
  const unreached = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"].includes(code);
  return new SNBError("BACKEND_FAILED", `the connection failed (${code})`, { lost: !unreached });
}

/** An SNBError for a response that is not 2xx: BAD_INPUT only for what the caller can change. */
export async function refused(response, { body: sent } = {}) {
  const body = Object(await response.json().catch(() => ({})));
  const words = String(body.error ?? body.detail ?? "");
  const { status } = response;
  const retryAfter = milliseconds(response.headers.get("retry-after") ?? body.retry_after);
  const inputs = named(body).filter((name) => sent?.includes(`"${name}":`));
  if (inputs.length && [400, 422].includes(status)) {
    return new SNBError("BAD_INPUT", `the server refused the input ${inputs.join(", ")}`);
  }
  if (status === 413) return new SNBError("BAD_INPUT", "the question with its history and passages is too large (413): shorten them");
  if (/version/i.test(body.title)) return new SNBError("BACKEND_FAILED", "Replicate has no such version of the model");
  if (status === 401 || status === 403) {
    return new SNBError("UNAUTHORIZED", `the server refused the token or key (${status}): check it`);
  }
  const full = status === 409 || status === 429 || (status === 503 && /queue is full/i.test(words)); // the last is Gradio's
  if (full) return new SNBError("BUSY", `the server is full (${status})`, { retryAfter });
  // Until setup is over Cog does not know that the model streams, and answers a request for events with 406.
  if (status === 406 || (status === 503 && (/setup/i.test(words) || retryAfter !== undefined))) {
    return new SNBError("COLD_START", "the model is being loaded", { retryAfter });
  }
  const meaning = { 402: "billing", 404: "nothing there", 524: "a proxy gave up waiting" }[status];
  return new SNBError("BACKEND_FAILED", `the server answered ${status}${meaning ? ` (${meaning})` : ""}`, { retryAfter });
}

/** The names of the inputs that a refusal complains about, without the values, which it may repeat. */
function named({ detail }) {
  if (!Array.isArray(detail)) return [...String(detail).matchAll(/^- input\.(\w+)/gm)].map(([, name]) => name); // Replicate
  return detail.map((fault) => /^body,input,(\w+)/.exec(fault?.loc)?.[1]); // Cog
}

/** `Retry-After`, seconds or a date, in ms: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after */
export function milliseconds(retryAfter) {
  if (!retryAfter) return undefined;
  const seconds = Number(retryAfter);
  const wait = Number.isNaN(seconds) ? Date.parse(retryAfter) - Date.now() : 1000 * seconds;
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}

/** The header for a key or token; none without one. */
export const bearer = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

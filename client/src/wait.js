/** Timeouts, and back-off with jitter. */

import { SNBError } from "./error.cjs";

const SHORTEST = 500; // ms of the first back-off, before jitter
const LONGEST = 4000; // ms of any back-off that no server asked for
const SPREAD = 2000; // ms at most over which a class that was turned away together is spread when it comes back

/** A signal that aborts with TIMEOUT after `ms`. */
export const limit = (ms) => bounded(undefined, ms).signal;

/** A signal that aborts with CANCELED when the caller's does, or with TIMEOUT after `ms`; `release` detaches it from both. */
export function bounded(caller, ms) {
  const stop = new AbortController();
  const leave = () => stop.abort(new SNBError("CANCELED", "the caller left"));
  const over = () => stop.abort(new SNBError("TIMEOUT", "no answer within the time"));
  const timer = ms === undefined ? undefined : setTimeout(over, ms).unref();
  caller?.addEventListener("abort", leave, { once: true });
  if (caller?.aborted) leave();
  const release = () => {
    clearTimeout(timer);
    caller?.removeEventListener("abort", leave);
  };
  return { signal: stop.signal, release };
}

/** Resolves after `ms`; rejects with the signal's reason when it is aborted. */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Milliseconds to wait after `tries` earlier retries: exponential back-off with equal jitter, and never less than the
 * `retryAfter` ms that the server asked for; https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function backoff(tries, retryAfter = 0) {
  const wait = Math.min(LONGEST, SHORTEST * 2 ** tries) * (0.5 + Math.random() / 2);
  return Math.max(wait, retryAfter + Math.random() * Math.min(SPREAD, retryAfter / 4));
}

/** Waiting: with an end, and with jitter. */

import { SNBError } from "./error.cjs";

const SHORTEST = 500; // ms before a second try that no server has asked for
const LONGEST = 4000; // ms between two
const SPREAD = 2000; // ms at most within which a class comes back that was sent away together

/** A signal that ends what takes longer than `ms`. */
export const limit = (ms) => bounded(undefined, ms).signal;

/** A signal, with reasons of ours, that is aborted when the caller's is, or after `ms`; `release` lets go of both. */
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
 * Milliseconds before try number `tries` + 1: an exponential wait with equal jitter, and no less than the server asked for,
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function backoff(tries, retryAfter = 0) {
  const wait = Math.min(LONGEST, SHORTEST * 2 ** tries) * (0.5 + Math.random() / 2);
  return Math.max(wait, retryAfter + Math.random() * Math.min(SPREAD, retryAfter / 4));
}

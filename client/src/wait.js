/** Waiting: with an end, and with jitter. */

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
 * Milliseconds before try number `tries` + 1: what the server asked for, or an exponential wait with full jitter,
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function backoff(tries, retryAfter) {
  const jitter = Math.random() * Math.min(8000, 250 * 2 ** tries);
  return retryAfter === undefined ? jitter : retryAfter + jitter / 10;
}

/** The three ways to ask a philosopher: `callSNB` for the answer, `streamSNB` as it comes, `startSNB` for later. */

import { configuredBackends } from "./backends.js";
import { SNBError } from "./error.cjs";
import { answer } from "./failover.js";
import { checkedInputs } from "./inputs.js";
import { hashed } from "./seal.js";

export { SNBError };
export { cancelSNB, pollSNB, startSNB } from "./later.js";

/** Resolves to the answer's text. See index.d.ts for the options. */
export async function callSNB(philosopher, ragContext, userMessage, options = {}) {
  const inputs = checkedInputs(philosopher, ragContext, userMessage, options);
  const more = { caller: hashed(options.caller), streaming: Boolean(options.onToken) };
  const task = answer(inputs, configuredBackends(options), { ...options, ...more });
  for (;;) {
    const { value, done } = await task.next();
    if (!done) {
      options.onToken?.(value);
      continue;
    }
    options.onResult?.(value);
    return value.text;
  }
}

/** An async iterable of text; `result` resolves when it has been read to its end. */
export function streamSNB(philosopher, ragContext, userMessage, options = {}) {
  const inputs = checkedInputs(philosopher, ragContext, userMessage, options);
  const more = { caller: hashed(options.caller), streaming: true };
  const task = answer(inputs, configuredBackends(options), { ...options, ...more });
  let settle;
  const result = new Promise((resolve, reject) => (settle = { resolve, reject }));
  result.catch(() => {}); // who reads the stream has seen the error there
  return {
    result,
    async *[Symbol.asyncIterator]() {
      try {
        settle.resolve(yield* task);
      } catch (error) {
        settle.reject(error);
        throw error;
      } finally {
        settle.reject(new SNBError("CANCELED", "the stream was left before its end"));
      }
    },
  };
}

/** Three ways to ask: `callSNB` for the whole answer, `streamSNB` to stream it, `startSNB` to poll for it later. */

import { configuredBackends } from "./backends.js";
import { SNBError } from "./error.cjs";
import { answer } from "./failover.js";
import { checkedInputs, checkedOptions } from "./inputs.js";
import { hashed } from "./seal.js";

export { SNBError };
export { cancelSNB, pollSNB, startSNB } from "./later.js";

/** Resolves to the answer's text. See index.d.cts for the options. */
export async function callSNB(philosopher, ragContext, userMessage, options) {
  const { onToken, onResult, ...others } = checkedOptions(options);
  const task = asked(philosopher, ragContext, userMessage, { ...others, streaming: Boolean(onToken) });
  try {
    for (;;) {
      const { value, done } = await task.next();
      if (!done) {
        await onToken(value);
        continue;
      }
      await onResult?.(value);
      return value.text;
    }
  } finally {
    await task.return(); // stops the backend's work if onToken threw
  }
}

/** An async iterable of text; `result` resolves when it has been read to its end. A failure rejects both. */
export function streamSNB(philosopher, ragContext, userMessage, options) {
  const opened = (async () => {
    const others = checkedOptions(options);
    return { task: asked(philosopher, ragContext, userMessage, { ...others, streaming: true }) };
  })();
  let settle;
  const result = new Promise((resolve, reject) => (settle = { resolve, reject }));
  result.catch(() => {}); // whoever reads the stream sees the error there
  opened.catch(settle.reject);
  return {
    result,
    async *[Symbol.asyncIterator]() {
      try {
        settle.resolve(yield* (await opened).task);
      } catch (error) {
        settle.reject(error);
        throw error;
      } finally {
        settle.reject(new SNBError("CANCELED", "the stream was left before its end"));
      }
    },
  };
}

function asked(philosopher, ragContext, userMessage, options) {
  const inputs = checkedInputs(philosopher, ragContext, userMessage, options);
  return answer(inputs, configuredBackends(options), { ...options, caller: hashed(options.caller) });
}

/** A container with Cog's HTTP API: https://cog.run/http */

import { randomBytes } from "node:crypto";
import { SNBError } from "./error.cjs";
import { events } from "./events.js";
import { bearer, bytes, json, parsed, send } from "./http.js";
import { sleep } from "./wait.js";

const ENDS = ["completed", "error"]; // the events that end a stream
const TRIES = 3;
const PAUSE = 300; // ms between tries; a server that has just lost its reader is still canceling the answer

export class Cog {
  constructor(url, key = process.env.SNB_API_KEY) {
    this.name = url.host + url.pathname.replace(/\/$/, "");
    this.#url = url.href.replace(/\/$/, "");
    this.#key = key;
  }
  #url;
  #key;

  /** Whether the host answers as Cog. */
  async recognised(signal) {
    const root = await json(`${this.#url}/`, { signal, headers: { ...bearer(this.#key), Accept: "application/json" } });
    return Boolean(root.cog_version);
  }

  /**
   * Yields the answer's text and returns its metrics. The client chooses the prediction's id, so that asking again after
   * a lost reply joins what is running and nothing is paid for twice. Leaving the stream cancels the prediction.
   */
  async *ask(inputs, { signal, caller }) {
    const id = newId();
    let sent = "";
    for (let tries = 0; ; tries++) {
      try {
        let text = "";
        for await (const { event, data } of this.#stream(id, inputs, { signal, caller })) {
          if (event === "output") text += parsed(data).chunk ?? "";
          if (text.length > sent.length) {
            if (!text.startsWith(sent)) break;
            yield text.slice(sent.length);
            sent = text;
          }
          const end = ENDS.includes(event) && finished(parsed(data));
          if (end && text !== sent) break; // asked again, it ended before the text already yielded
          if (end) return end.metrics;
        }
        throw new SNBError("BACKEND_FAILED", "the stream ended before the answer", { lost: true });
      } catch (error) {
        if (!error.lost || tries === TRIES) throw error;
        await sleep(PAUSE, signal);
      }
    }
  }

  /** Starts a prediction that runs without a reader; resolves to its id. */
  async start(inputs, { caller, signal } = {}) {
    const id = newId();
    await this.#put(id, inputs, caller, signal);
    return id;
  }

  /**
   * What there is of a prediction after at most `patience` ms. Cog's own server forgets a prediction when it ends: if
   * that happens between two looks, the same question is asked again with the same seed.
   */
  async look(id, inputs, { patience, caller }) {
    const signal = AbortSignal.timeout(Math.ceil(patience)); // it takes whole ms only, and patienceMs may have a fraction
    let text = "";
    try {
      await this.#put(id, inputs, caller, signal);
      for await (const { event, data } of this.#stream(id, inputs, { signal, caller })) {
        if (event === "output") text += parsed(data).chunk ?? "";
        if (ENDS.includes(event)) return { status: "succeeded", text, metrics: finished(parsed(data)).metrics };
      }
    } catch (error) {
      if (!signal.aborted && !error.lost) throw error;
    }
    return { status: "processing", text };
  }

  async cancel(id) {
    await send(`${this.#url}/predictions/${id}/cancel`, { method: "POST", headers: bearer(this.#key) }).catch((error) => {
      if (!/ 404 /.test(error.message)) throw error; // 404: it is over already
    });
  }

  #put(id, inputs, caller, signal) {
    const request = this.#request(inputs, caller, { Prefer: "respond-async" });
    return json(`${this.#url}/predictions/${id}`, { ...request, signal }, { free: true }); // a repeated PUT joins the first
  }

  async *#stream(id, inputs, { signal, caller }) {
    const request = this.#request(inputs, caller, { Accept: "text/event-stream" });
    const response = await send(`${this.#url}/predictions/${id}`, { ...request, signal });
    if (!/event-stream/.test(response.headers.get("content-type"))) {
      const prediction = await response.json().catch(() => ({}));
      yield { event: "output", data: JSON.stringify({ chunk: [prediction.output ?? []].flat().join("") }) };
      yield { event: "completed", data: JSON.stringify(prediction) };
      return;
    }
    yield* events(bytes(response, signal));
  }

  #request(inputs, caller, headers) {
    headers = { ...headers, ...(caller && { "X-Caller": caller }), ...bearer(this.#key), "Content-Type": "application/json" };
    return { method: "PUT", headers, body: JSON.stringify({ input: inputs }) };
  }
}

const newId = () => randomBytes(16).toString("hex");

/** Returns a prediction that succeeded; for any other throws the SNBError that fits the endpoint's own code. */
export function finished(prediction) {
  if (prediction.status === "succeeded") return { ...prediction, metrics: prediction.metrics ?? {} };
  const [, code, sentence] = /\b([A-Z]{3,}(?:_[A-Z]+)*): ([^]*)/.exec(String(prediction.error ?? "")) ?? [];
  if (code === "BAD_INPUT" || code === "PROMPT_TOO_LONG") throw new SNBError("BAD_INPUT", sentence);
  if (code === "DEADLINE") throw new SNBError("BUSY", "the answer did not begin before its deadline");
  if (["canceled", "aborted"].includes(prediction.status)) {
    throw new SNBError("BACKEND_FAILED", `the prediction was ${prediction.status} by its host`, { lost: true });
  }
  throw new SNBError("BACKEND_FAILED", `the prediction failed${code ? ` (${code})` : ""}`);
}

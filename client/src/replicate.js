/** A model or a deployment on Replicate, through the official client: https://replicate.com/docs/reference/http */

import Client from "replicate";
import { finished } from "./cog.js";
import { SNBError, badSetting } from "./error.cjs";
import { events } from "./events.js";
import { ALONE, broken, bytes, exchange, refused, send } from "./http.js";
import { backoff, limit, sleep } from "./wait.js";

const POLL = 500; // ms between two requests for a prediction
const STARTING = 3; // requests after which a prediction that is still starting is reported as such
const LONGEST_WAIT = 60; // s of `Prefer: wait`, by Replicate's documentation
const SHORTEST_LIFE = 5; // s of `Cancel-After`, likewise
const LIFE = 15 * 60; // s that a started prediction may take, cold boot included
const TRIES = 4;
const textOf = ({ output }) => [output ?? []].flat().join("");
const ended = (prediction) => !["starting", "processing"].includes(prediction.status);

/** Returns a prediction that succeeded; throws EXPIRED if it was removed: https://replicate.com/docs/topics/predictions/data-retention */
function kept(prediction) {
  if (prediction.data_removed) throw new SNBError("EXPIRED", "Replicate has removed the answer: ask again");
  return finished(prediction);
}

export class Replicate {
  /** @param {string} model `owner/name`, `owner/name:version` or `deployments/owner/name` */
  constructor(model, token = process.env.REPLICATE_API_TOKEN) {
    const [, deployment, owner, name, version] =
      /^(deployments\/)?([\w.-]+)\/([\w.-]+)(?::([\w.-]+))?$/.exec(model) ?? [];
    if (!owner) {
      throw badSetting(`SNB_BACKEND_URL: write replicate:owner/name[:version] or replicate:deployments/owner/name, not ${model}`);
    }
    this.name = `replicate:${model}`;
    this.#model = { owner, name, version, deployment };
    this.#token = token;
    this.#failures = new WeakMap();
    const baseUrl = process.env.REPLICATE_API_BASE_URL; // the official Python client calls it REPLICATE_BASE_URL
    this.#client = new Client({
      auth: token,
      fetch: (url, init) => this.#fetch(url, init),
      ...(baseUrl && { baseUrl: `${baseUrl.replace(/\/(v1\/?)?$/, "")}/v1` }),
    });
  }
  #client;
  #failures;
  #model;
  #token;

  /** Yields the answer's text and returns its metrics; leaving the stream cancels the prediction. */
  async *ask(inputs, { signal, left, share, streaming, cancelable, progress }) {
    // Only the reply has the id, without which nothing can be canceled. So it is not held beyond this backend's share of the
    // time, and not at all for a caller who may leave.
    const wait = streaming || cancelable ? undefined : Math.min(LONGEST_WAIT, Math.floor(share() / 1000) - 1);
    let prediction = await this.#create(inputs, { wait, life: left() / 1000, signal });
    let sent = "";
    try {
      progress(prediction.status);
      if (streaming && prediction.urls?.stream && !ended(prediction)) {
        for await (const text of this.#streamed(prediction.urls.stream, signal)) {
          sent += text;
          yield text;
        }
      }
      for (;;) {
        if (!ended(prediction) || streaming) prediction = await this.#get(prediction.id, signal);
        progress(prediction.status);
        const text = textOf(prediction);
        const differs = !text.startsWith(sent) && (ended(prediction) || !sent.startsWith(text)); // the prediction may lag behind
        if (text && differs) throw new SNBError("BACKEND_FAILED", "the stream and the answer differ");
        if (text.length > sent.length) {
          yield text.slice(sent.length);
          sent = text;
        }
        if (ended(prediction)) return kept(prediction).metrics;
        await sleep(POLL, signal);
      }
    } finally {
      if (!ended(prediction)) await this.cancel(prediction.id).catch(() => {});
    }
  }

  /** Starts a prediction; resolves to its id. */
  async start(inputs, { signal } = {}) {
    return (await this.#create(inputs, { life: LIFE, signal })).id;
  }

  /** What there is of a prediction when it ends, after `patience` ms, or after STARTING requests if it is still starting. */
  async look(id, inputs, { patience }) {
    const began = Date.now();
    const signal = limit(patience);
    let prediction = { status: "processing" };
    let next; // when it may be asked for again, in ms since 1970
    try {
      for (let looks = 0; !ended(prediction) && (looks < STARTING || prediction.status !== "starting"); looks++) {
        if (looks) await sleep(POLL, signal);
        prediction = await this.#get(id, signal);
      }
    } catch (error) {
      if (!signal.aborted && error.code !== "BUSY") throw error;
      next = began + (error.retryAfter ?? 0);
    }
    const text = textOf(prediction);
    if (!ended(prediction) || prediction.status === "canceled") return { status: prediction.status, text, next };
    return { status: "succeeded", text, metrics: kept(prediction).metrics };
  }

  async cancel(id) {
    await this.#calls(() => this.#client.predictions.cancel(id, { signal: AbortSignal.timeout(3000) }));
  }

  async #create(input, { wait, life, signal }) {
    if (!this.#token) throw new SNBError("UNAUTHORIZED", "REPLICATE_API_TOKEN is not set");
    const { deployment, owner, name } = this.#model;
    const route = deployment ? `/deployments/${owner}/${name}/predictions` : "/predictions";
    const data = deployment ? { input, stream: true } : { input, stream: true, version: await this.#version(signal) };
    const headers = { "Cancel-After": `${Math.max(SHORTEST_LIFE, Math.ceil(life))}s` };
    if (wait >= 1) headers.Prefer = `wait=${wait}`;
    const request = { method: "POST", headers, data, signal };
    return this.#calls(async () => (await this.#client.request(route, request)).json());
  }

  /** The version to run, which community models need; the latest is looked up for each question, since it changes. */
  async #version(signal) {
    const { owner, name, version } = this.#model;
    if (version) return version;
    const { latest_version: latest } = await this.#calls(() => this.#client.models.get(owner, name, { signal }));
    if (!latest) throw new SNBError("BACKEND_FAILED", `${this.name} has no version: push one`);
    return latest.id;
  }

  #get(id, signal) {
    return this.#calls(() => this.#client.predictions.get(id, { signal }));
  }

  /** Yields the text of a stream. If it ends or breaks without `done`, the prediction has the rest. */
  async *#streamed(url, signal) {
    const headers = { Accept: "text/event-stream", Authorization: `Bearer ${this.#token}` };
    try {
      const response = await send(url, { headers, signal });
      for await (const { event, data } of events(bytes(response, signal))) {
        if (event === "output" && data) yield data;
        if (event === "done" || event === "error") return;
      }
    } catch (error) {
      if (signal?.aborted) throw error;
    }
  }

  /** Runs a call of the official client; a failure is the error that #fetch kept for it. */
  async #calls(call) {
    try {
      return await call();
    } catch (error) {
      if (error instanceof SNBError) throw error;
      throw this.#failures.get(error.response) ?? broken(error);
    }
  }

  /**
   * The `fetch` given to the official client. Version 1.4.0 retries back to back and ignores Retry-After
   * (withAutomaticRetries expects an integer where the header is a string), so failures are hidden from it behind a status
   * 499, which it does not retry: GETs and cancels are retried here. Delete this when it honours Retry-After.
   */
  async #fetch(url, init) {
    const repeatable = init.method === "GET" || /\/cancel$/.test(String(url));
    for (let tries = 0, retryAfter; ; tries++) {
      let failure;
      let passing = true;
      try {
        const response = await exchange(url, { ...init, headers: { ...init.headers, ...ALONE } });
        if (response.ok) return response;
        passing = response.status === 429 || response.status >= 500;
        failure = await refused(response, init);
        ({ retryAfter } = failure);
      } catch (error) {
        failure = error;
      }
      if (init.signal?.aborted || !repeatable || !passing || tries === TRIES) {
        failure.retryAfter ??= retryAfter; // that of the refusal whose pause was cut short
        const stopped = new Response(null, { status: 499 });
        this.#failures.set(stopped, failure);
        return stopped;
      }
      await sleep(backoff(tries, failure.retryAfter), init.signal).catch(() => {});
    }
  }
}

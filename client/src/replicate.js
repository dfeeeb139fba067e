/** A model or a deployment on Replicate, through the official client: https://replicate.com/docs/reference/http */

import Client from "replicate";
import { finished } from "./cog.js";
import { SNBError, badSetting } from "./error.cjs";
import { events } from "./events.js";
import { broken, bytes, refused, send } from "./http.js";
import { backoff, sleep } from "./wait.js";

const POLL = 500; // ms between two looks
const LONGEST_WAIT = 60; // s of `Prefer: wait`, by the documentation
const SHORTEST_LIFE = 5; // s of `Cancel-After`, by the documentation
const LIFE = 15 * 60; // s that a started prediction may take, cold boot included
const TRIES = 4;
const ended = (prediction) => !["starting", "processing"].includes(prediction.status);

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

  /** Yields the answer's text and returns its metrics; a prediction that is left is canceled. */
  async *ask(inputs, { signal, left, share, streaming, progress }) {
    // The reply must be here before the share is over, for it brings the id, without which nothing can be canceled.
    const wait = streaming ? undefined : Math.min(LONGEST_WAIT, Math.floor(share() / 1000) - 1);
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
        const text = [prediction.output ?? []].flat().join("");
        if (!text.startsWith(sent) && text) throw new SNBError("BACKEND_FAILED", "the stream and the answer differ");
        if (text.length > sent.length) {
          yield text.slice(sent.length);
          sent = text;
        }
        if (ended(prediction)) return finished(prediction).metrics;
        await sleep(POLL, signal);
      }
    } finally {
      if (!ended(prediction)) await this.cancel(prediction.id).catch(() => {});
    }
  }

  /** Starts a prediction; resolves to its id. */
  async start(inputs) {
    return (await this.#create(inputs, { life: LIFE })).id;
  }

  /** What there is of a prediction now. */
  async look(id) {
    const prediction = await this.#get(id);
    const text = [prediction.output ?? []].flat().join("");
    if (!ended(prediction)) return { status: prediction.status, text };
    return { status: "succeeded", text, metrics: finished(prediction).metrics };
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

  /** Community models are run by version; the latest one is looked up once. */
  async #version(signal) {
    const model = this.#model;
    if (!model.version) {
      const found = await this.#calls(() => this.#client.models.get(model.owner, model.name, { signal }));
      model.version = found.latest_version?.id;
    }
    if (!model.version) throw new SNBError("BACKEND_FAILED", `${this.name} has no version: push one`);
    return model.version;
  }

  #get(id, signal) {
    return this.#calls(() => this.#client.predictions.get(id, { signal }));
  }

  /** What comes of a stream. It may end, or break, without `done`: then the prediction tells the rest. */
  async *#streamed(url, signal) {
    const headers = { Accept: "text/event-stream", Authorization: `Bearer ${this.#token}` };
    try {
      const response = await send(url, { headers, signal });
      for await (const { event, data } of events(bytes(response, signal))) {
        if (event === "output") yield data;
        if (event === "done" || event === "error") return;
      }
    } catch (error) {
      if (signal?.aborted) throw error;
    }
  }

  /** Runs a call of the official client; what #fetch learned of a failure is the error. */
  async #calls(call) {
    try {
      return await call();
    } catch (error) {
      if (error instanceof SNBError) throw error;
      throw this.#failures.get(error.response) ?? (error.response ? await refused(error.response) : broken(error));
    }
  }

  /**
   * The `fetch` of the official client. Version 1.4.0 repeats what failed back to back and does not read Retry-After
   * (withAutomaticRetries compares a string with an integer), so it gets to see no failure that it would repeat:
   * looks and cancels are repeated here, and the last failure goes round it. Delete when it honours Retry-After.
   */
  async #fetch(url, init) {
    const repeatable = init.method === "GET" || /\/cancel$/.test(String(url));
    for (let tries = 0; ; tries++) {
      let failure;
      try {
        const response = await fetch(url, init);
        if (response.status !== 429 && response.status < 500) return response;
        failure = await refused(response);
      } catch (error) {
        failure = broken(error, init.signal);
      }
      if (init.signal?.aborted || !repeatable || tries === TRIES) {
        const stopped = new Response(null, { status: 499 });
        this.#failures.set(stopped, failure);
        return stopped;
      }
      await sleep(backoff(tries, failure.retryAfter), init.signal).catch(() => {});
    }
  }
}

/**
 * A general model, at a provider with OpenAI's chat completions API, that plays the philosopher: a stopgap.
 *
 * https://platform.openai.com/docs/api-reference/chat/create
 */

import { SNBError } from "./error.cjs";
import { events } from "./events.js";
import { ALONE, bearer, bytes, milliseconds, parsed, refused, send } from "./http.js";
import { message, persona } from "./prompt.js";
import { Started } from "./started.js";

const NOTICE = "Un modèle général joue ici le philosophe : ce n’est pas celui que le professeur a entraîné.";
const TOO_LONG = /^\s*\{[^]*(?:context[ _](?:length|window|size)|too long|too many tokens)/i; // in JSON: a proxy's HTML page has its own limits
const MOST_STOPS = 4; // stop sequences that the API takes

export class OpenAI {
  /**
   * @param {URL} url the API's base, `https://host/v1`
   * @param {string} model its name at that provider
   */
  constructor(url, model, token = process.env.SNB_OPENAI_TOKEN) {
    this.name = `openai:${url.host}#${model}`;
    this.#url = `${url.origin}${url.pathname.replace(/(\/chat\/completions)?\/*$/, "")}/chat/completions`;
    this.#model = model;
    this.#headers = { ...ALONE, ...bearer(token), "Content-Type": "application/json", Accept: "text/event-stream" };
  }
  #url;
  #model;
  #headers;
  #started = new Started();

  /** Yields the answer's text and returns its metrics; leaving the stream, or aborting, ends the answer. */
  async *ask(inputs, { signal, deadline }) {
    return yield* this.#answer(await this.#asked(inputs, signal), signal, deadline);
  }

  async start(inputs, { signal } = {}) {
    const stop = new AbortController();
    signal?.addEventListener("abort", () => stop.abort(signal.reason), { once: true }); // it does not abort after the start
    return this.#started.read(this.#answer(await this.#asked(inputs, stop.signal), stop.signal), stop);
  }

  look(id, inputs, { patience }) {
    return this.#started.look(id, patience);
  }

  async cancel(id) {
    this.#started.cancel(id);
  }

  #asked(inputs, signal) {
    const { history, max_tokens = 256, temperature = 0.7, seed } = inputs;
    const stop = inputs.stop_sequences?.slice(0, MOST_STOPS);
    const { top_p, presence_penalty, frequency_penalty } = inputs; // the API has no top_k, repetition_penalty or min_tokens
    const user = { role: "user", content: message(inputs) };
    const messages = [{ role: "system", content: persona(inputs) }, ...history, user];
    const options = { max_tokens, temperature, seed, top_p, presence_penalty, frequency_penalty, ...(stop?.length && { stop }) };
    const body = { model: this.#model, messages, ...options, stream: true, stream_options: { include_usage: true } };
    return send(this.#url, { method: "POST", headers: this.#headers, body: JSON.stringify(body), signal }, { refusal });
  }

  /** Yields the text and returns the metrics; at the deadline, as at our own endpoint, what has come is the answer. */
  async *#answer(response, signal, deadline = Infinity) {
    const metrics = { notice: NOTICE };
    let empty = true;
    for await (const { data } of events(bytes(response, signal))) {
      if (data === "[DONE]") break;
      const { choices, usage, error } = parsed(data);
      if (error) throw new SNBError("BACKEND_FAILED", "the provider broke off the answer");
      if (usage) Object.assign(metrics, { input_token_count: usage.prompt_tokens, output_token_count: usage.completion_tokens });
      const { delta, finish_reason } = choices?.[0] ?? {}; // the last event may hold nothing but the usage
      if (finish_reason) metrics.finish_reason = finish_reason;
      if (!delta?.content) continue;
      empty = false;
      yield delta.content;
      if (!finish_reason && Date.now() > deadline) return { ...metrics, finish_reason: "deadline" };
    }
    if (!metrics.finish_reason) throw new SNBError("BACKEND_FAILED", "the stream ended before the answer", { lost: true });
    if (empty) throw new SNBError("BACKEND_FAILED", "the provider gave an empty answer");
    return metrics;
  }
}

/** An SNBError for a response that is not 2xx; BAD_INPUT only for what the caller can change. */
async function refusal(response) {
  const { status } = response;
  const reason = await response.clone().text().catch(() => "");
  if (status === 401 || status === 403) {
    return new SNBError("UNAUTHORIZED", `the provider refused SNB_OPENAI_TOKEN (${status}): check it`);
  }
  if (status === 429 && /insufficient_quota/.test(reason)) return new SNBError("BACKEND_FAILED", "the provider asks for money (429)");
  if (status === 503) {
    const retryAfter = milliseconds(response.headers.get("retry-after"));
    return new SNBError("COLD_START", "the model is being loaded", { retryAfter });
  }
  if (![400, 404, 422].includes(status)) return refused(response);
  if (status !== 404 && TOO_LONG.test(reason)) return new SNBError("BAD_INPUT", "the question and its passages are too long");
  return new SNBError("BACKEND_FAILED", `the provider refused the request (${status}): check the model in SNB_BACKEND_URL`);
}

/**
 * A Gradio app: https://www.gradio.app/guides/querying-gradio-apps-with-curl
 *
 * A POST is answered with an event id; a second request, with that id, streams the answer as events. This project's own
 * endpoint `/answer` takes the inputs of `predict`; to an app that has only the first Space's `chat_function(message,
 * history)`, persona, passages and question go as one message.
 */

import { SNBError } from "./error.cjs";
import { events } from "./events.js";
import { bearer, bytes, json, parsed, send } from "./http.js";
import { message, persona } from "./prompt.js";
import { Started } from "./started.js";

const RICH = "/answer";
const PLAIN = "/chat_function";
const TAIL = /\s*\*\[Contexte\s*:[^]*\]\*\s*$/; // the note that the first Space appends to an answer
const HELD = /\s*(?:\*(?:\[[^\]]*(?:\]\*?)?)?)?$/; // may be the beginning of a TAIL, so it is held back
const ERROR_TEXT = /^\s*(?:❌|⚠️)/; // how the first Space begins an error that it sends as an answer
const CODES = ["BAD_INPUT", "UNAUTHORIZED", "BUSY", "COLD_START", "TIMEOUT"]; // those of this project's own page

export class Gradio {
  /**
   * @param {URL} url
   * @param {string} prefix `/gradio_api`, or `` before Gradio 5
   */
  constructor(url, prefix, token = process.env.HF_TOKEN) {
    this.name = url.host;
    this.#base = url.href.replace(/\/$/, "") + prefix;
    const trusted = /\.(hf\.space|huggingface\.co)$/.test(url.hostname);
    this.#headers = bearer(trusted && token);
  }
  #base;
  #headers;
  #parameters; // of RICH; null where there is none
  #started = new Started();

  /** Yields the answer's text and returns its metrics, which only this project's page has; leaving the stream cancels it. */
  async *ask(inputs, { signal }) {
    const { endpoint, id } = await this.#join(inputs, signal);
    return yield* this.#answer(endpoint, id, signal);
  }

  /** Whether the host answers as Gradio; remembers which endpoints it has. */
  async recognised(signal) {
    const { named_endpoints: endpoints } = await json(`${this.#base}/info`, { headers: this.#headers, signal });
    this.#parameters = endpoints?.[RICH]?.parameters ?? null;
    return Boolean(endpoints);
  }

  async start(inputs, { signal } = {}) {
    const { endpoint, id } = await this.#join(inputs, signal);
    const stop = new AbortController();
    return this.#started.read(this.#answer(endpoint, id, stop.signal), stop);
  }

  look(id, inputs, { patience }) {
    return this.#started.look(id, patience);
  }

  async cancel(id) {
    this.#started.cancel(id);
  }

  async #join(inputs, signal) {
    if (this.#parameters === undefined) await this.recognised(signal);
    const parameters = this.#parameters;
    const endpoint = parameters ? RICH : PLAIN;
    const data = parameters
      ? parameters.map(({ parameter_name, parameter_default }) => inputs[parameter_name] ?? parameter_default ?? null)
      : [`${persona(inputs)}\n\n${message(inputs)}`, pairs(inputs.history)];
    const headers = { ...this.#headers, "Content-Type": "application/json" };
    const request = { method: "POST", headers, body: JSON.stringify({ data }), signal };
    const { event_id: id } = await json(`${this.#base}/call${endpoint}`, request, { free: true }); // a Space is paid by the hour
    if (typeof id !== "string") throw new SNBError("BACKEND_FAILED", "Gradio's reply has no event_id");
    return { endpoint, id };
  }

  async *#answer(endpoint, id, signal) {
    const response = await send(`${this.#base}/call${endpoint}/${id}`, { headers: this.#headers, signal });
    let sent = "";
    for await (const { event, data } of events(bytes(response, signal))) {
      if (event === "error") throw refusal(parsed(data));
      if (event !== "generating" && event !== "complete") continue;
      const outputs = [parsed(data)].flat();
      const whole = lastAnswer(outputs);
      if (endpoint === PLAIN && ERROR_TEXT.test(whole)) {
        throw new SNBError("BACKEND_FAILED", "the Space gave an error for an answer");
      }
      const text = endpoint === PLAIN ? whole.replace(event === "complete" ? TAIL : HELD, "") : whole;
      if (text.startsWith(sent) && text.length > sent.length) {
        yield text.slice(sent.length);
        sent = text;
      }
      if (event === "complete") {
        if (!text) throw new SNBError("BACKEND_FAILED", "the Space gave an empty answer");
        if (text !== sent) throw new SNBError("BACKEND_FAILED", "the Space took back what it had said");
        return endpoint === RICH ? { ...outputs[1] } : {};
      }
    }
    throw new SNBError("BACKEND_FAILED", "the stream ended before the answer", { lost: true });
  }
}

/** The SNBError for this project's page's title and sentence; another app's words, which may repeat the question, are dropped. */
function refusal(data) {
  const [, code, sentence] = /^(\w+): ([^]*)$/.exec(data?.error) ?? [];
  const own = code === data?.title && CODES.includes(code);
  return own ? new SNBError(code, sentence) : new SNBError("BACKEND_FAILED", "the Space could not answer");
}

/** History as pairs `[question, answer]`, the older format of Gradio's chatbot. */
function pairs(history) {
  const list = [];
  for (const { role, content } of history) {
    if (role === "user") list.push([content, ""]);
    else if (list.length && !list.at(-1)[1]) list.at(-1)[1] = content;
    else list.push(["", content]);
  }
  return list;
}

/** The newest answer in an endpoint's outputs: a text, `[[question, answer], …]` or `[{role, content}, …]`. */
function lastAnswer(outputs) {
  // An endpoint made with gr.api has one output, which holds what the function returned.
  if (outputs.length === 1 && Array.isArray(outputs[0]?.[1])) [outputs] = outputs;
  const turns = outputs.find((output) => Array.isArray(output));
  const last = turns ? turns.at(-1) : outputs[0];
  let text = Array.isArray(last) ? last[1] : last?.content ?? last;
  if (Array.isArray(text)) text = text.map((part) => part.text ?? "").join("");
  return typeof text === "string" ? text : "";
}

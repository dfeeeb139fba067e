/** Turns the arguments of `callSNB` into the inputs of the endpoint's `predict`, checked before anything is sent. */

import { PERSONAS } from "./personas.js";
import { randomInt } from "node:crypto";
import { SNBError, badSetting } from "./error.cjs";

const PHILOSOPHERS = Object.keys(PERSONAS);
const MAX_MESSAGE = 4000; // characters, as predict.py says
const MAX_PASSAGES = 200000;
const MAX_TEXT = 20000;
const MAX_TURNS = 200; // the latest ones are sent; older ones would not fit the model's context either
const LONGEST_TIMER = 2 ** 31 - 1; // ms; setTimeout treats anything longer as 1 ms

const number = (input, low, high, kind = "number") => ({
  input,
  allowed: `a ${kind} from ${low} to ${high}`,
  holds: (value) => typeof value === "number" && value >= low && value <= high && (kind === "number" || Number.isInteger(value)),
});
const whole = (input, low, high) => number(input, low, high, "whole number");
const isText = (value) => typeof value === "string";
const isList = (value) => Array.isArray(value) && value.every(isText);
const callback = { allowed: "a function", holds: (value) => typeof value === "function" };
const milliseconds = (least) => number(undefined, least, LONGEST_TIMER);

/** The allowed values of each option; `input` is its name at the endpoint. */
const OPTIONS = {
  history: { allowed: "a list", holds: Array.isArray },
  caller: { allowed: "a string", holds: isText },
  maxTokens: whole("max_tokens", 1, 2048),
  minTokens: whole("min_tokens", 0, 2048),
  temperature: number("temperature", 0, 2),
  topP: number("top_p", 0, 1),
  topK: whole("top_k", 0, 1000),
  repetitionPenalty: number("repetition_penalty", 0.5, 2),
  presencePenalty: number("presence_penalty", -2, 2),
  frequencyPenalty: number("frequency_penalty", -2, 2),
  seed: whole("seed", 0, 4294967295),
  stopSequences: { input: "stop_sequences", allowed: "a list of strings", holds: isList },
  systemPrompt: { input: "system_prompt", allowed: "a string", holds: isText },
  backends: { allowed: "a string or a list of strings", holds: (value) => isText(value) || isList(value) },
  timeoutMs: milliseconds(1),
  patienceMs: milliseconds(0),
  coldStartMs: milliseconds(0),
  signal: { allowed: "an AbortSignal", holds: (value) => typeof value?.aborted === "boolean" && callback.holds(value.addEventListener) },
  onToken: callback,
  onResult: callback,
  onRestart: callback,
};
const INPUTS = Object.keys(OPTIONS).filter((name) => OPTIONS[name].input);

/** Returns the options of a call; throws BAD_INPUT for a misspelt name or a wrong value. null counts as not given. */
export function checkedOptions(options) {
  if (typeof (options ?? {}) !== "object") throw new SNBError("BAD_INPUT", "options must be an object");
  for (const [name, value] of Object.entries(options ?? {})) {
    if (!Object.hasOwn(OPTIONS, name)) {
      throw new SNBError("BAD_INPUT", `there is no option ${name}; there are ${Object.keys(OPTIONS).join(", ")}`);
    }
    const { input, allowed, holds } = OPTIONS[name];
    if (value !== undefined && value !== null && !holds(value)) {
      throw new SNBError("BAD_INPUT", `${name} must be ${allowed}${input ? ` (the input ${input})` : ""}`);
    }
  }
  return options ?? {};
}

/** SNB_TIMEOUT_MS in ms, or `standard` if it is not set; throws BAD_SETTING. */
export function configuredTimeout(standard) {
  const text = process.env.SNB_TIMEOUT_MS?.trim();
  const { allowed, holds } = OPTIONS.timeoutMs;
  if (text && !holds(Number(text))) throw badSetting(`SNB_TIMEOUT_MS must be ${allowed}, such as 9000, not ${text}`);
  return Number(text) || standard;
}

/**
 * Returns the inputs; one that is not given is undefined, which JSON leaves out, since the server refuses null. There is
 * always a seed, so that a question asked again gets the same answer.
 */
export function checkedInputs(philosopher, ragContext, userMessage, options) {
  const name = String(philosopher ?? "spinoza").toLowerCase();
  if (!PHILOSOPHERS.includes(name) && !options.systemPrompt) {
    throw new SNBError("BAD_INPUT", `philosopher must be one of ${PHILOSOPHERS.join(", ")}`);
  }
  const inputs = { philosopher: PHILOSOPHERS.includes(name) ? name : "spinoza" };
  inputs.user_message = checkedText("userMessage", userMessage, 1, MAX_MESSAGE);
  inputs.rag_context = checkedText("ragContext", ragContext ?? "", 0, MAX_PASSAGES);
  inputs.history = turns(options.history ?? []).slice(-MAX_TURNS);
  for (const option of INPUTS) inputs[OPTIONS[option].input] = options[option] ?? undefined;
  checkedText("systemPrompt", inputs.system_prompt ?? "", 0, MAX_TEXT);
  inputs.seed ??= randomInt(2 ** 32);
  return inputs;
}

function checkedText(name, text, least, most) {
  if (typeof text !== "string") throw new SNBError("BAD_INPUT", `${name} must be a string`);
  const length = [...text].length;
  if (length < least || length > most) {
    throw new SNBError("BAD_INPUT", `${name} must have ${least} to ${most} characters, not ${length}`);
  }
  if (/\p{Surrogate}/u.test(text)) throw new SNBError("BAD_INPUT", `${name} holds half of a character`);
  return text;
}

/** The turns as the endpoint takes them, from `{role, content}` or from Gradio's pairs `[question, answer]`. */
function turns(history) {
  return history.flatMap((turn, index) => {
    if (Array.isArray(turn) && turn.length === 2) {
      const [user, assistant] = turn;
      return [
        ...(user ? [{ role: "user", content: checkedText(`history[${index}]`, user, 1, MAX_TEXT) }] : []),
        ...(assistant ? [{ role: "assistant", content: checkedText(`history[${index}]`, assistant, 1, MAX_TEXT) }] : []),
      ];
    }
    if (!["user", "assistant"].includes(turn?.role)) {
      throw new SNBError("BAD_INPUT", `history[${index}] must be {role: "user" or "assistant", content}`);
    }
    return [{ role: turn.role, content: checkedText(`history[${index}].content`, turn.content, 0, MAX_TEXT) }];
  });
}

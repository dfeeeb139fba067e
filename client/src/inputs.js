/** From the arguments of `callSNB` to the inputs of the endpoint's `predict`, checked before anything is sent. */

import { PERSONAS } from "./personas.js";
import { randomInt } from "node:crypto";
import { SNBError } from "./error.cjs";

const PHILOSOPHERS = Object.keys(PERSONAS);
const MAX_MESSAGE = 4000; // characters, as predict.py says
const MAX_TEXT = 20000;

const NAMES = {
  maxTokens: "max_tokens",
  temperature: "temperature",
  seed: "seed",
  stopSequences: "stop_sequences",
  systemPrompt: "system_prompt",
};

/**
 * Every input has a value or is left out, for the server refuses null. There is always a seed: an answer that has to
 * be asked for again is then the same answer.
 */
export function checkedInputs(philosopher, ragContext, userMessage, options = {}) {
  const name = String(philosopher ?? "spinoza").toLowerCase();
  if (!PHILOSOPHERS.includes(name) && !options.systemPrompt) {
    throw new SNBError("BAD_INPUT", `philosopher must be one of ${PHILOSOPHERS.join(", ")}`);
  }
  const inputs = { philosopher: PHILOSOPHERS.includes(name) ? name : "spinoza" };
  inputs.user_message = checkedText("userMessage", userMessage, 1, MAX_MESSAGE);
  inputs.rag_context = checkedText("ragContext", ragContext ?? "", 0, MAX_TEXT);
  inputs.history = turns(options.history ?? []);
  for (const [option, input] of Object.entries(NAMES)) {
    if (options[option] !== undefined && options[option] !== null) inputs[input] = options[option];
  }
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

/** Turns as the endpoint takes them, from `{role, content}` or from Gradio's pairs `[question, answer]`. */
function turns(history) {
  if (!Array.isArray(history)) throw new SNBError("BAD_INPUT", "history must be a list");
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

/**
 * A class that asks through the project's own client, for scripts/drill. Its one argument is JSON: `{pupils,
 * questions: [{philosopher, message, maxTokens}]}`. It goes on until it is ended. The backends are those of the environment.
 * Neighbours ask different questions. Each line that it prints is an answer as JSON; times are in seconds.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { configuredBackends } from "../../client/src/backends.js";
import { callSNB } from "../../client/src/index.js";

const PAUSE = 500; // ms between two questions of a pupil
const { questions, pupils } = JSON.parse(process.argv[2]);
const names = configuredBackends().map(({ name }) => name);
// The client logs each question, and that SNB_API_PREFIX, which the plan sets, does not fit both backends.
console.info = console.warn = () => {};

async function ask(pupil, { philosopher, message, ...options }) {
  const asked = Date.now() / 1000;
  let failure = "";
  let backend = null;
  try {
    let result;
    await callSNB(philosopher, "", message, { ...options, onResult: (given) => (result = given) });
    if (!result.text) throw new Error("an answer without text");
    backend = names.indexOf(result.backend);
  } catch (error) {
    failure = String(error?.message ?? error);
  }
  console.log(JSON.stringify({ pupil, asked, ended: Date.now() / 1000, failure, backend }));
}

async function attend(place) {
  for (let round = 0; ; round++) {
    await ask(place, questions[(place + round) % questions.length]);
    await sleep(PAUSE);
  }
}

await Promise.all(Array.from({ length: pupils }, (_, place) => attend(place)));

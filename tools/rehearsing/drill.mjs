/**
 * A class that asks through the project's own client, for scripts/drill. Its one argument is JSON: `{pupils, quiet,
 * questions: [{philosopher, message, maxTokens}]}`. It goes on until it is ended. The backends are those of the environment.
 * Neighbours ask different questions. Each line that it prints is an answer as JSON; times are in seconds.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { configuredBackends } from "../../client/src/backends.js";
import { answer } from "../../client/src/failover.js";
import { checkedInputs } from "../../client/src/inputs.js";

const PAUSE = 500; // ms between two questions of a pupil
const { questions, pupils, quiet } = JSON.parse(process.argv[2]);
const backends = configuredBackends();
console.info = () => {}; // the client logs a line for each question
if (quiet) console.warn = () => {}; // it warns of SNB_API_PREFIX, which the drill itself sets as the plan does

// callSNB, except that it also says who answered.
async function ask(pupil, { philosopher, message, ...inputs }) {
  const asked = Date.now() / 1000;
  let failure = "";
  let backend = null;
  try {
    const task = answer(checkedInputs(philosopher, "", message, inputs), backends, {});
    let step;
    do step = await task.next();
    while (!step.done);
    if (!step.value.text) throw new Error("an answer without text");
    backend = backends.findIndex(({ name }) => name === step.value.backend);
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

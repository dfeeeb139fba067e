/**
 * A class that asks through the project's own client, for scripts/drill. Its one argument is JSON: `{pupils, rounds,
 * questions: [{number, philosopher, message, seed, maxTokens}]}`, and without `rounds` it goes on until it is ended. The
 * backends are those of the environment. Neighbours ask different questions. Each line that it prints is an answer as JSON; times are in seconds.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { configuredBackends } from "../../client/src/backends.js";
import { answer } from "../../client/src/failover.js";
import { checkedInputs } from "../../client/src/inputs.js";

const PAUSE = 500; // ms between two questions of a pupil
const { questions, pupils, rounds } = JSON.parse(process.argv[2]);
const backends = configuredBackends();
console.info = () => {}; // the client logs a line for each question

// callSNB, except that it also says who answered.
async function ask({ number, philosopher, message, ...inputs }) {
  const asked = Date.now() / 1000;
  let text = "";
  let failure = "";
  let backend = null;
  try {
    const task = answer(checkedInputs(philosopher, "", message, inputs), backends, {});
    let step;
    do step = await task.next();
    while (!step.done);
    text = step.value.text;
    backend = backends.findIndex(({ name }) => name === step.value.backend);
  } catch (error) {
    failure = String(error?.message ?? error);
  }
  console.log(JSON.stringify({ number, asked, ended: Date.now() / 1000, text, failure, backend }));
}

async function pupil(place) {
  for (let round = 0; round !== rounds; round++) {
    await ask(questions[(place + round) % questions.length]);
    await sleep(PAUSE);
  }
}

await Promise.all(Array.from({ length: pupils }, (_, place) => pupil(place)));

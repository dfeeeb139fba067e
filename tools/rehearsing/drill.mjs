/**
 * A class that asks through the project's own client, for scripts/drill: each line that comes in is a round as JSON,
 * `{backends, timeoutMs, pupils: [[{number, philosopher, message, seed, maxTokens}]]}`; each line that goes out is an
 * answer as JSON, then `{"over": true}`. Pupils ask at once, each one question after the other. Ends with its input.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { createInterface } from "node:readline";
import { configuredBackends } from "../../client/src/backends.js";
import { callSNB } from "../../client/src/index.js";

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// callSNB returns the text alone; who was asked for it stands in the one line that the client logs for each question.
const lines = new AsyncLocalStorage();
console.info = (line) => lines.getStore()?.push(line);

async function ask({ number, philosopher, message, ...options }, { backends, timeoutMs }) {
  const logged = [];
  const asked = Date.now() / 1000;
  let text = "";
  let failure = "";
  try {
    text = await lines.run(logged, () => callSNB(philosopher, "", message, { ...options, backends, timeoutMs }));
  } catch (error) {
    failure = String(error?.message ?? error);
  }
  const names = configuredBackends({ backends }).map(({ name }) => name);
  const answered = logged.join().match(/([^\s,]+) OK \d+ ms/);
  const backend = answered ? names.indexOf(answered[1]) : null;
  say({ number, asked, ended: Date.now() / 1000, text, failure, backend });
}

const rounds = createInterface({ input: process.stdin });
rounds.on("close", () => process.exit());
for await (const line of rounds) {
  const round = JSON.parse(line);
  const pupil = async (questions) => {
    for (const question of questions) await ask(question, round);
  };
  await Promise.all(round.pupils.map(pupil));
  say({ over: true });
}

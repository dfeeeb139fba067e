/** Every error of snb/errors.py through every backend, one of each kind in every way of asking; and answers that look like errors. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { callSNB, pollSNB, startSNB, streamSNB } from "../src/index.js";
import { environment, start, until } from "./doors.js";

const { urls, close } = await start("refusing");
const MODEL = "replicate:owner/spinoza";
const DOORS = { "Cog's server": urls.cog, "the front": urls.front, "the page": urls.page, Replicate: MODEL };
const OWN = { BAD_INPUT: "BAD_INPUT", PROMPT_TOO_LONG: "BAD_INPUT", DEADLINE: "BUSY" }; // any other is the backend's fault
const QUEUED = { code: "BUSY" }; // with startSNB a full server is no error: the question waits

/** The ways to ask a question; each resolves to the text, or to the error. */
const WAYS = {
  plain: (...question) => callSNB(...question).catch((error) => error),
  streamed: async (...question) => {
    let text = "";
    try {
      for await (const piece of streamSNB(...question)) text += piece;
      return text;
    } catch (error) {
      return error;
    }
  },
  polled: async (...question) => {
    let look = { handle: await startSNB(...question) };
    await until(async () => {
      look = await pollSNB(look.handle, { ...question.at(-1), patienceMs: 1000 });
      return ["failed", "queued", "succeeded"].includes(look.status);
    });
    return look.status === "queued" ? QUEUED : look.error ?? look.text;
  },
};

/** The page itself retries a full server for ten minutes, so whoever polls sees the question waiting. */
async function goesOnAsking(backend) {
  let look = { handle: await startSNB("kant", "", "DEADLINE", { backends: [backend] }) };
  for (let looks = 0; looks < 3; looks++) look = await pollSNB(look.handle, { backends: [backend], patienceMs: 1000 });
  assert.deepEqual([look.status, look.text], ["processing", ""]);
}

before(() => environment({ REPLICATE_API_TOKEN: "r8_test", REPLICATE_API_BASE_URL: urls.replicate, SNB_API_KEY: urls.key }));
after(close);

for (const [door, backend] of Object.entries(DOORS)) {
  test(door, { concurrency: 8 }, async (t) => {
    const cells = Object.entries(urls.sentences).flatMap(([code, sentence]) =>
      Object.entries(code in OWN || code === "ENGINE_DOWN" ? WAYS : { plain: WAYS.plain }).flatMap(([way, ask]) =>
        (code === "DEADLINE" ? [""] : ["", " late"]).map((late) =>
          t.test(`${code}${late}, ${way}`, async () => {
            if (`${door} ${code} ${way}` === "the page DEADLINE polled") return goesOnAsking(backend);
            const timeoutMs = code === "DEADLINE" ? 6000 : 60_000; // a full server is retried until then
            const error = await ask("kant", "", `${code}${late}`, { backends: [backend], timeoutMs });
            assert.equal(error.code, OWN[code] ?? "BACKEND_FAILED", error.message);
            if (error.code === "BAD_INPUT") assert.equal(error.message, `BAD_INPUT: ${sentence.slice(code.length + 2)}`);
          }),
        ),
      ),
    );
    await Promise.all(cells);
    assert.ok(cells.length > 40);
  });
}

const ANSWERS = ["Erreur : tu confonds la cause et l’effet.", "❌ Non.", "Error: un mot anglais.", "Vrai. *[Contexte : aucun]*"];
for (const [door, backend] of Object.entries(DOORS)) {
  test(`${door}: an answer that looks like an error, or like the tail of the first Space, is an answer`, async () => {
    for (const answer of ANSWERS) {
      for (const ask of Object.values(WAYS)) assert.equal(await ask("kant", "", `Dis ${answer}`, { backends: [backend] }), answer);
    }
  });
}

for (const door of ["the front", "the page"]) {
  test(`${door}: a history that is too large is its caller's fault, and nobody else's question goes elsewhere`, async () => {
    const backends = [DOORS[door], urls.cog];
    const history = Array.from({ length: 100 }, (_, index) => [`Question ${index}`, "é".repeat(8000)]);
    for (const ask of Object.values(WAYS).slice(0, 2)) {
      const error = await ask("kant", "", "Oui.", { backends, history });
      assert.equal(error.code, "BAD_INPUT", error.message);
      assert.match(error.message, /413.*shorten/);
    }
    await assert.rejects(startSNB("kant", "", "Oui.", { backends, history }), { code: "BAD_INPUT" });
    await callSNB("kant", "", "Oui.", { backends, onResult: ({ attempts }) => assert.deepEqual(attempts.map(({ code }) => code), ["OK"]) });
  });
}

for (const [door, backend] of Object.entries(DOORS)) {
  test(`${door}: an input that its schema refuses is the caller's fault, by name`, async () => {
    for (const ask of Object.values(WAYS)) {
      const error = await ask("kant", "", "Oui.", { backends: [backend], maxTokens: 1999 }).catch((thrown) => thrown);
      assert.equal(error.code, "BAD_INPUT", error.message);
      assert.match(error.message, /max_tokens/);
      assert.doesNotMatch(error.message, /1999/);
    }
  });
}

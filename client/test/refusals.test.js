/** What servers say when they refuse: every error of snb/errors.py, through every door, however it is asked for. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { callSNB, pollSNB, startSNB, streamSNB } from "../src/index.js";
import { environment, start, until } from "./doors.js";

const { urls, close } = await start("tests.refusing");
const MODEL = "replicate:owner/spinoza";
const DOORS = { "Cog's server": urls.cog, "the front": urls.front, "the page": urls.page, Replicate: MODEL };
const OWN = { BAD_INPUT: "BAD_INPUT", PROMPT_TOO_LONG: "BAD_INPUT", DEADLINE: "BUSY" }; // any other is the backend's fault
const QUEUED = { code: "BUSY" }; // asked later, a full server is no error: the question waits

const WAYS = {
  plain: (...question) => callSNB(...question).catch((error) => error),
  streamed: async (...question) => {
    try {
      for await (const _ of streamSNB(...question));
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
    return look.status === "queued" ? QUEUED : look.error;
  },
};

before(() => environment({ REPLICATE_API_TOKEN: "r8_test", REPLICATE_API_BASE_URL: urls.replicate, SNB_API_KEY: urls.key }));
after(close);

for (const [door, backend] of Object.entries(DOORS)) {
  test(door, { concurrency: 8 }, async (t) => {
    const cells = Object.entries(urls.sentences).flatMap(([code, sentence]) =>
      Object.entries(WAYS).flatMap(([way, ask]) =>
        (code === "DEADLINE" ? [""] : ["", " late"]).map((late) =>
          t.test(`${code}${late}, ${way}`, async (t) => {
            if (`${door} ${code} ${way}` === "the page DEADLINE polled") return t.skip("it asks again itself, for ten minutes");
            const timeoutMs = code === "DEADLINE" ? 4000 : 60_000; // a full server is asked until the end
            const error = await ask("kant", "", `${code}${late}`, { backends: [backend], timeoutMs });
            assert.equal(error.code, OWN[code] ?? "BACKEND_FAILED", error.message);
            if (error.code === "BAD_INPUT") assert.equal(error.message, `BAD_INPUT: ${sentence.slice(code.length + 2)}`);
          }),
        ),
      ),
    );
    await Promise.all(cells);
    assert.ok(cells.length > 60);
  });
}

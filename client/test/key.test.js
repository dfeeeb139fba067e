/** The client before a Cog server that asks for a key. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { callSNB } from "../src/index.js";
import { environment, open } from "./doors.js";

let doors;
before(async () => (doors = await open()));
after(() => doors.close());
beforeEach(() => environment({ SNB_BACKEND_URL: `${doors.locked}/` }));

test("who sends SNB_API_KEY is answered", async () => {
  process.env.SNB_API_KEY = doors.key;
  assert.ok(await callSNB("kant", "", "Bonjour", { maxTokens: 8, seed: 1 }));
});

test("another key, or none, is UNAUTHORIZED, and is not asked for again", async () => {
  for (const SNB_API_KEY of ["une-autre-cle-0123456789", ""]) {
    Object.assign(process.env, { SNB_API_KEY });
    await assert.rejects(callSNB("kant", "", "Bonjour", { maxTokens: 8 }), (error) => {
      assert.equal(error.code, "UNAUTHORIZED");
      assert.equal(error.attempts.length, 1);
      assert.ok(!SNB_API_KEY || !`${error} ${JSON.stringify(error.attempts)}`.includes(SNB_API_KEY));
      return true;
    });
  }
});

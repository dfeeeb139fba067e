/** The client against a Cog server that requires a key. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { callSNB, cancelSNB, pollSNB, startSNB } from "../src/index.js";
import { LONG, environment, open } from "./doors.js";

let doors;
before(async () => (doors = await open()));
after(() => doors.close());
beforeEach(() => environment({ SNB_BACKEND_URL: `${doors.locked}/` }));

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

test("one caller leaves places for another, and only a hash of its name is sent", async (t) => {
  process.env.SNB_API_KEY = doors.key;
  const fetch = t.mock.method(globalThis, "fetch").mock;
  const ask = (caller) => startSNB("kant", "", "Bonjour", { ...LONG, caller });
  const handles = await Promise.all(Array.from({ length: 17 }, () => ask("192.0.2.1")));
  const looks = await Promise.all(handles.map((handle) => pollSNB(handle, { patienceMs: 10 })));
  assert.equal(looks.filter(({ status }) => status === "queued").length, 1);
  const names = new Set(fetch.calls.map(({ arguments: [, init] }) => init.headers["X-Caller"]).filter(Boolean));
  assert.match([...names].join(), /^[0-9a-f]{32}$/);
  assert.ok(await callSNB("kant", "", "Bonjour", { maxTokens: 8, seed: 1, caller: "192.0.2.2" }));
  for (const handle of handles) await cancelSNB(handle);
});

/** The client against the real Cog server. */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { after, before, beforeEach, test } from "node:test";
import { callSNB, cancelSNB, pollSNB, startSNB, streamSNB } from "../src/index.js";
import { LONG, environment, open, until } from "./doors.js";

const QUESTION = "La liberté est-elle une illusion ?";
let doors;
before(async () => (doors = await open()));
after(() => doors.close());
beforeEach(() => environment({ SNB_BACKEND_URL: doors.cog }));

test("the answer is the same in one piece, streamed, and asked for later", async () => {
  const options = { seed: 3, maxTokens: 30 };
  const whole = await callSNB("bergson", "La durée.", QUESTION, options);
  const pieces = [];
  await callSNB("bergson", "La durée.", QUESTION, { ...options, onToken: (text) => pieces.push(text) });
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(""), whole);
  let look = { handle: await startSNB("bergson", "La durée.", QUESTION, options) };
  await until(async () => (look = await pollSNB(JSON.parse(JSON.stringify(look.handle)))).status === "succeeded");
  assert.equal(look.text, whole);
});

test("a look shows what there is so far", async () => {
  const before_ = doors.canceled();
  let look = { handle: await startSNB("kant", "", QUESTION, LONG) };
  await until(async () => {
    look = await pollSNB(look.handle, { patienceMs: 1000 });
    return look.text;
  });
  assert.equal(look.status, "processing");
  await cancelSNB(look.handle);
  await cancelSNB(look.handle);
  await until(() => doors.canceled() > before_);
});

test("of a conversation that is longer than the server takes the latest turns are sent", async () => {
  const history = Array.from({ length: 150 }, (_, index) => [`Question ${index}`, "Réponse"]);
  assert.ok(await callSNB("kant", "", QUESTION, { history, maxTokens: 8 }));
});

test("leaving the stream, or aborting, stops the decoding", async () => {
  const before_ = doors.canceled();
  for await (const _ of streamSNB("kant", "", QUESTION, LONG)) break;
  await until(() => doors.canceled() > before_);
  const stop = new AbortController();
  const call = callSNB("kant", "", QUESTION, { ...LONG, signal: stop.signal, onToken: () => stop.abort() });
  await assert.rejects(call, { code: "CANCELED" });
  await until(() => doors.canceled() > before_ + 1);
});

test("who asks how an answer ended is told that it was cut", async () => {
  for (const [options, reason] of [[{ ...LONG, timeoutMs: 1500 }, "deadline"], [{ maxTokens: 4, seed: 3 }, "length"]]) {
    let result;
    const { signal } = new AbortController();
    const text = await callSNB("spinoza", "", QUESTION, { ...options, signal, onResult: (value) => (result = value) });
    assert.equal(getEventListeners(signal, "abort").length, 0);
    assert.equal(result.text, text);
    assert.equal(result.metrics.finish_reason, reason);
  }
});

test("thirty at once are all answered as alone", async () => {
  const options = { seed: 5, maxTokens: 6, timeoutMs: 50_000 };
  const alone = await callSNB("kant", "", QUESTION, options);
  const answers = await Promise.all(Array.from({ length: 30 }, () => callSNB("kant", "", QUESTION, options)));
  assert.deepEqual(new Set(answers), new Set([alone]));
});

test("a message too long, half a character, an unknown philosopher: refused before anything is sent", async () => {
  for (const [who, message] of [["kant", "é".repeat(4001)], ["kant", "\ud83d"], ["descartes", "Bonjour"], ["kant", ""]]) {
    await assert.rejects(callSNB(who, "", message), { code: "BAD_INPUT" });
  }
});

test("a handle says nothing, and one that is made up, altered, of another secret or too old is refused", async (t) => {
  const handle = await startSNB("kant", "", QUESTION, { maxTokens: 4 });
  assert.ok(!Buffer.from(handle, "base64url").toString("latin1").includes("127.0.0.1"));
  const inputs = { philosopher: "kant", user_message: "a", system_prompt: "You are a pirate.", max_tokens: 2048 };
  const altered = handle.slice(0, 40) + (handle[40] === "A" ? "B" : "A") + handle.slice(41);
  const asks = t.mock.method(globalThis, "fetch").mock;
  for (const forged of [{ inputs, tried: [], attempts: [] }, JSON.stringify({ inputs }), "", null, handle.slice(1), altered]) {
    assert.equal((await pollSNB(forged)).error.code, "BAD_INPUT");
    await assert.rejects(cancelSNB(forged), { code: "BAD_INPUT" });
  }
  process.env.SNB_HANDLE_SECRET = "another";
  assert.equal((await pollSNB(handle)).error.code, "BAD_INPUT");
  delete process.env.SNB_HANDLE_SECRET;
  await assert.rejects(startSNB("kant", "", QUESTION), { code: "BAD_SETTING", message: /SNB_HANDLE_SECRET/ });
  environment({ SNB_BACKEND_URL: doors.cog });
  const now = Date.now();
  t.mock.method(Date, "now", () => now + 31 * 60_000);
  assert.equal((await pollSNB(handle)).error.message, "BAD_INPUT: the handle is too old: ask again");
  assert.equal(asks.callCount(), 0, "nothing was asked");
});

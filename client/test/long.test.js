/** A long answer from each backend, generated only once: started and polled to its end and beyond, or streamed and broken.
 *
 * The longest is for Cog's own server, which keeps a bounded number of events: 2,000 tokens take tens of seconds on two cores. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { Cog } from "../src/cog.js";
import { Gradio } from "../src/gradio.js";
import { Replicate } from "../src/replicate.js";
import { environment, open, until } from "./doors.js";

let doors;
before(async () => (doors = await open()));
after(() => doors.close());
beforeEach(() => environment({ REPLICATE_API_BASE_URL: doors.replicate }));

const replicate = () => new Replicate("owner/spinoza", "r8_test");
const BACKENDS = {
  // Each has a length of its own, by which it is found in the servers' log. Cog's own server forgets an answer when it ends.
  "Cog's server": [2045, () => new Cog(new URL(doors.cog), ""), false],
  "the front": [306, () => new Cog(new URL(doors.locked), doors.key), true],
  "the page": [307, () => new Gradio(new URL(doors.page), "/gradio_api"), true],
  Replicate: [308, replicate, true],
};
const long = (tokens) => ({ user_message: "Raconte.", max_tokens: tokens, min_tokens: tokens, seed: 1 });

for (const [name, [tokens, backend, kept]] of Object.entries(BACKENDS)) {
  test(`${name}: an answer of ${tokens} tokens is looked at until its end`, async () => {
    const [host, inputs] = [backend(), long(tokens)];
    const id = await host.start(inputs);
    let look = { text: "" };
    await until(async () => {
      const next = await host.look(id, inputs, { patience: 3000.5 }); // patienceMs may have a fraction
      // An answer that ended between two looks and was not kept is generated again from its beginning.
      assert.ok(next.text.startsWith(look.text) || (!kept && look.text.startsWith(next.text)));
      look = next;
      return look.status === "succeeded";
    }, 600_000);
    assert.ok(look.text.length > tokens);
    if (!kept) return;
    assert.deepEqual(await host.look(id, inputs, { patience: 3000 }), look);
    assert.equal(await doors.made(tokens), 1);
  });
}

/** Breaks the first event stream after `bytes` bytes, wherever that falls; returns whether it has. */
function breaking(t, bytes) {
  const { fetch } = globalThis;
  let left = bytes;
  async function* cut(body) {
    for await (const chunk of body) {
      yield chunk.subarray(0, left); // never empty: a Response of Node 20.20 waits for ever after an empty chunk
      if ((left -= chunk.length) <= 0) throw new TypeError("terminated");
    }
  }
  t.mock.method(globalThis, "fetch", async (url, init) => {
    const response = await fetch(url, init);
    if (left <= 0 || !/event-stream/.test(response.headers.get("content-type"))) return response;
    return new Response(cut(response.body), response);
  });
  return () => left <= 0;
}

for (const [name, tokens, backend] of [["the front", 303, BACKENDS["the front"][1]], ["Replicate", 304, replicate]]) {
  test(`${name}: a stream of ${tokens} tokens that breaks goes on where it stopped`, async (t) => {
    const broke = breaking(t, 2000);
    let text = "";
    const options = { left: () => 600_000, share: () => 600_000, streaming: true, progress() {} };
    for await (const piece of backend().ask(long(tokens), options)) text += piece;
    assert.ok(broke());
    assert.ok(text.length > tokens);
    assert.equal(await doors.made(tokens), 1);
  });
}

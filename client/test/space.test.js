/** The page's API in place of the first Space, called by this project's client and by Gradio's own. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client } from "@gradio/client";
import { callSNB, cancelSNB, pollSNB, startSNB, streamSNB } from "../src/index.js";
import { LONG, environment, host, open, passOn, until } from "./doors.js";

const QUESTION = "Faut-il se méfier de ses désirs ?";
const OPTIONS = { seed: 7, maxTokens: 24 };
let doors;
before(async () => (doors = await open()));
after(() => doors.close());

const use = (url) => environment({ SNB_BACKEND_URL: url });

test("streamSNB gets it piece by piece, history included", async () => {
  const history = [{ role: "user", content: "Bonjour." }, { role: "assistant", content: "Bonjour, toi." }];
  const options = { ...OPTIONS, history, maxTokens: 300, minTokens: 300 }; // too many to come in one piece
  use(doors.page);
  const stream = streamSNB("kant", "", QUESTION, options);
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  assert.ok(pieces.length > 1);
  use(doors.cog);
  assert.equal(pieces.join(""), await callSNB("kant", "", QUESTION, options));
});

test("an answer can be started, read later, and canceled", async () => {
  use(doors.page);
  let look = { handle: await startSNB("kant", "", QUESTION, OPTIONS) };
  await until(async () => (look = await pollSNB(look.handle, { patienceMs: 200 })).status === "succeeded");
  assert.ok(look.text.length > 10);
  assert.equal(look.metrics.seed, OPTIONS.seed);
  const before_ = doors.canceled();
  const long = await startSNB("kant", "", QUESTION, LONG);
  await until(async () => (await pollSNB(long, { patienceMs: 200 })).text.length > 0);
  await cancelSNB(long);
  await until(() => doors.canceled() > before_);
});

test("leaving the stream cancels at the backend", async () => {
  use(doors.page);
  const before_ = doors.canceled();
  for await (const _ of streamSNB("kant", "", QUESTION, LONG)) break;
  await until(() => doors.canceled() > before_);
});

test("Gradio's own client predicts, streams, and gets errors as errors", async () => {
  // A client for each question: 2.7.0 loses one that is asked before the stream of the last is closed.
  const client = () => Client.connect(doors.page);
  const { data } = await (await client()).predict("/chat_function", { message: QUESTION, history: [] });
  assert.equal(data[0], "");
  assert.equal(data[1][0][0], QUESTION);
  assert.ok(data[1][0][1].length > 5);
  const texts = [];
  let metrics;
  const job = (await client()).submit("/answer", { user_message: QUESTION, philosopher: "bergson", seed: 7, max_tokens: 300, min_tokens: 300 });
  for await (const message of job) if (message.type === "data") [texts[texts.length], metrics] = message.data;
  assert.ok(texts.length > 1);
  for (const text of texts) assert.ok(texts.at(-1).startsWith(text));
  assert.equal(metrics.seed, 7);
  const refused = (await client()).predict("/answer", { user_message: "x".repeat(4001) });
  await assert.rejects(refused, ({ message }) => /BAD_INPUT/.test(message));
});

const messages = (...contents) =>
  contents.map((content, index) => ({ role: ["user", "assistant"][index], metadata: null, content, options: null }));
const parts = (text) => [{ type: "text", text }];

/** A Gradio client of each generation (0.16 runs only in a browser), and how its chatbot stores a question and answer. */
const CLIENTS = {
  "0.16": ["gradio-client-0", (...pair) => [pair]],
  1: ["gradio-client-1", messages],
  2: ["@gradio/client", (...texts) => messages(...texts.map(parts))],
};

/** A proxy that passes on neither the host name nor the protocol by which it was reached. */
const silent = (incoming, outgoing) =>
  incoming.pipe(passOn(doors.page, incoming, outgoing, { headers: { ...incoming.headers, host: "interne.invalid" } }));

for (const [version, [name, kept]] of Object.entries(CLIENTS)) {
  test(`@gradio/client ${version} gets its chatbot's history with the answer, through a proxy that says nothing`, async () => {
    const module = await import(name);
    const browser = version === "0.16" ? asInABrowser() : () => {};
    try {
      await host(silent, async (url) => {
        const client = await (module.Client ? module.Client.connect(url) : module.client(url));
        const before_ = kept("Bonjour.", "Bonjour, toi.");
        const history = [...before_, ...kept(QUESTION, "Réflexion en cours...")];
        const { data } = await client.predict("/chat_kant", [QUESTION, history]);
        const last = data[1].at(-1);
        const text = last[1] ?? last.content[0].text ?? last.content;
        assert.ok(text.length > 5);
        assert.deepEqual(data, ["", [...before_, ...kept(QUESTION, text)]]);
        client.close?.();
      });
    } finally {
      browser();
    }
  });
}

/** Provides what 0.16 needs of a browser: window, location and EventSource. Returns a function that removes them. */
function asInABrowser() {
  globalThis.window = { location: { hostname: "127.0.0.1", protocol: "http:", search: "" }, setTimeout };
  globalThis.location = { origin: "http://127.0.0.1" };
  globalThis.EventSource = class {
    #left = new AbortController();
    constructor(url) {
      this.#read(url).catch(() => {});
    }
    async #read(url) {
      const { body } = await fetch(url, { signal: this.#left.signal });
      let text = "";
      for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
        const lines = (text + chunk).split("\n");
        text = lines.pop();
        for (const line of lines) if (line.startsWith("data: ")) this.onmessage?.({ data: line.slice(6) });
      }
    }
    close() {
      this.#left.abort();
    }
  };
  return () => ["window", "location", "EventSource"].forEach((name) => delete globalThis[name]);
}

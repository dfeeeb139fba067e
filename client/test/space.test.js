/** The page's API in place of the Space that front ends know: by this project's client, Gradio's own, and bare fetch. */

import assert from "node:assert/strict";
import { request as httpRequest } from "node:http";
import { after, before, test } from "node:test";
import { Client } from "@gradio/client";
import { callSNB, cancelSNB, pollSNB, startSNB, streamSNB } from "../src/index.js";
import { environment, host, open, until } from "./doors.js";

const QUESTION = "Faut-il se méfier de ses désirs ?";
const OPTIONS = { seed: 7, maxTokens: 24 };
let doors;
before(async () => (doors = await open()));
after(() => doors.close());

function use(url, more = {}) {
  environment({ SNB_BACKEND_URL: url, ...more });
}

for (const more of [{}, { SNB_API_PREFIX: "/gradio_api" }]) {
  test(`callSNB gets through the page what the backend says ${JSON.stringify(more)}`, async () => {
    for (const philosopher of ["spinoza", "bergson", "kant"]) {
      use(doors.cog);
      const text = await callSNB(philosopher, "Un extrait.", QUESTION, OPTIONS);
      use(doors.page, more);
      assert.equal(await callSNB(philosopher, "Un extrait.", QUESTION, OPTIONS), text);
    }
  });
}

test("streamSNB gets it piece by piece, history included", async () => {
  const history = [{ role: "user", content: "Bonjour." }, { role: "assistant", content: "Bonjour, toi." }];
  use(doors.page);
  const stream = streamSNB("kant", "", QUESTION, { ...OPTIONS, history });
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  assert.ok(pieces.length > 1);
  use(doors.cog);
  assert.equal(pieces.join(""), await callSNB("kant", "", QUESTION, { ...OPTIONS, history }));
});

test("how an answer ended, and how much of the passages was read, is told through the page as through Cog", async () => {
  const told = async (url) => {
    use(url);
    let result;
    const options = { seed: 7, minTokens: 4, maxTokens: 4, onResult: (value) => (result = value) };
    await callSNB("kant", "Un extrait du cours. ".repeat(2000), QUESTION, options);
    const { finish_reason: end, rag_context_read: read, notice } = result.metrics;
    return { end, read, notice };
  };
  const metrics = await told(doors.page);
  assert.deepEqual(metrics, await told(doors.cog));
  assert.equal(metrics.end, "length");
  assert.ok(metrics.read > 0 && metrics.read < 1);
});

test("an answer can be started, read later, and canceled", async () => {
  use(doors.page);
  let look = { handle: await startSNB("kant", "", QUESTION, OPTIONS) };
  await until(async () => (look = await pollSNB(look.handle, { patienceMs: 200 })).status === "succeeded");
  assert.ok(look.text.length > 10);
  assert.equal(look.metrics.seed, OPTIONS.seed);
  const before_ = doors.canceled();
  const long = await startSNB("kant", "", QUESTION, { maxTokens: 2048 });
  await until(async () => (await pollSNB(long, { patienceMs: 200 })).text.length > 0);
  await cancelSNB(long);
  await until(() => doors.canceled() === before_ + 1);
});

test("leaving the stream cancels at the backend", async () => {
  use(doors.page);
  const before_ = doors.canceled();
  for await (const _ of streamSNB("kant", "", QUESTION, { maxTokens: 2048 })) break;
  await until(() => doors.canceled() === before_ + 1);
});

test("Gradio's own client predicts, streams, and gets errors as errors", async () => {
  const client = await Client.connect(doors.page);
  const { data } = await client.predict("/chat_function", { message: QUESTION, history: [] });
  assert.equal(data[0], "");
  assert.equal(data[1][0][0], QUESTION);
  assert.ok(data[1][0][1].length > 5);
  const texts = [];
  let metrics;
  const job = client.submit("/answer", { user_message: QUESTION, philosopher: "bergson", seed: 7, max_tokens: 24 });
  for await (const message of job) if (message.type === "data") [texts[texts.length], metrics] = message.data;
  assert.ok(texts.length > 1);
  for (const text of texts) assert.ok(texts.at(-1).startsWith(text));
  assert.equal(metrics.seed, 7);
  await assert.rejects(client.predict("/answer", { user_message: "x".repeat(4001) }), ({ message }) => /BAD_INPUT/.test(message));
});

/** Gradio's clients of each generation; 0.16 knows a browser only. */
const CLIENTS = { "0.16": "gradio-client-0", "1": "gradio-client-1", "2": "@gradio/client" };

/** A proxy that says nothing of itself: neither the name nor the protocol that it is reached by. */
function silent(request, response) {
  const { hostname, port } = new URL(doors.page);
  const headers = { ...request.headers, host: "interne.invalid" };
  const asked = httpRequest({ hostname, port, path: request.url, method: request.method, headers }, (reply) => {
    response.writeHead(reply.statusCode, reply.headers);
    reply.pipe(response);
  });
  request.pipe(asked);
  response.on("close", () => asked.destroy());
}

for (const [version, name] of Object.entries(CLIENTS)) {
  test(`@gradio/client ${version} gets the pairs of the existing Space, through a proxy that says nothing`, async () => {
    const module = await import(name);
    const browser = version === "0.16" ? asInABrowser() : () => {};
    try {
      await host(silent, async (url) => {
        const client = await (module.Client ? module.Client.connect(url) : module.client(url));
        const { data } = await client.predict("/chat_kant", [QUESTION, [["Bonjour.", "Bonjour, toi."]]]);
        assert.deepEqual([data[0], data[1][0], data[1][1][0]], ["", ["Bonjour.", "Bonjour, toi."], QUESTION]);
        assert.ok(data[1][1][1].length > 5);
        client.close?.();
      });
    } finally {
      browser();
    }
  });
}

/** What 0.16 wants of a browser: a window and an EventSource. Returns what takes them away. */
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

/** What the versions of the existing front end send, and how each takes the answer from the reply. */
const HEADERS = { "Content-Type": "application/json" };
const post = async (path, body) => (await fetch(`${doors.page}${path}`, { method: "POST", headers: HEADERS, body: JSON.stringify(body) })).json();
const session = () => ({ session_hash: Math.random().toString(36).substring(2, 15) });
const whole = (reply) => reply.data[1].at(-1)[1];

/** Reads the events of /call as two of the versions do: every line of data, for the message of Gradio's queue. */
async function followed(path, message) {
  const { event_id: id } = await post(path, { data: [message, []], ...session() });
  const events = await (await fetch(`${doors.page}${path}/${id}`)).text();
  const messages = events.split("\n").filter((line) => line.startsWith("data: ")).map((line) => JSON.parse(line.slice(6)));
  return whole(messages.find((one) => one?.msg === "process_completed").output);
}

const VERSIONS = {
  "980c60d, at main": async (message) => whole(await post("/gradio_api/call/chat_function", { data: [message, []], fn_index: 0, ...session() })),
  "ce3e14c, predict": async (message) => whole(await post("/gradio_api/predict/chat_function", { data: [message, []], fn_index: 0, ...session() })),
  "0e469f5, the events": (message) => followed("/gradio_api/call/chat_function", message),
  "7836f73, a philosopher each": (message) => followed("/gradio_api/call/chat_bergson", message),
  "61a283e, Gradio 3": async (message) => whole(await post("/api/predict", { data: [message, []] })),
};

const PASSAGES = "[1] Éthique, III\n".padEnd(2600, "Un extrait du cours. ");
const PACKED = `Tu es Henri Bergson. Tu dialogues avec un élève.\n\nSTYLE :\n- Analogies\n\nContexte pertinent (extraits de la littérature) :\n${PASSAGES}\n\nQuestion de l'élève : ${QUESTION}`;

for (const [version, ask] of Object.entries(VERSIONS)) {
  test(`the request of the front end's version ${version}, is answered`, async () => assert.ok((await ask(PACKED)).length > 5));
}

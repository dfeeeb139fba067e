/** The package as a site gets it: installed as README says, with types and the same refusals for both kinds of module. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import * as esm from "../src/index.js";
import { environment, host, until } from "./doors.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const TSC = `${ROOT}client/node_modules/typescript/bin/tsc`;
const cjs = createRequire(import.meta.url)("..");
const home = mkdtempSync(join(tmpdir(), "snb-package-"));
const site = join(home, "site");
after(() => rmSync(home, { recursive: true }));
beforeEach(() => environment({ SNB_BACKEND_URL: "http://127.0.0.1:1" }));

const blocks = (document, kind) =>
  [...readFileSync(`${ROOT}client/${document}`, "utf8").matchAll(new RegExp(`\`\`\`${kind}\n([^]*?)\n *\`\`\``, "g"))].map(([, text]) => text);

/** Runs a program in a folder; resolves to its exit code and what it wrote. */
function run(command, args, { cwd = site, env } = {}) {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (piece) => (text += piece));
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, text })));
}

/** A Cog server that says « Oui. » and then ends if `completed`, or else stays silent; `asked` lists the requests. */
function cog({ completed = true, asked = [] } = {}) {
  const event = (name, data) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
  return (incoming, outgoing) => {
    asked.push(`${incoming.method} ${incoming.url}`);
    outgoing.on("close", () => outgoing.writableFinished || asked.push("left"));
    if (incoming.url === "/") return outgoing.setHeader("content-type", "application/json").end('{"cog_version": "0.23.1"}');
    if (incoming.method !== "PUT") return outgoing.writeHead(404).end();
    outgoing.writeHead(200, { "content-type": "text/event-stream" });
    outgoing.write(event("output", { chunk: "Oui.", index: 0 }));
    if (completed) outgoing.end(event("completed", { status: "succeeded", metrics: { rag_context_read: 0.5 } }));
  };
}

// npm packs and installs, from its cache or the registry: ten seconds on two busy cores.
before(async () => {
  mkdirSync(site);
  const env = { HOME: home, npm_config_cache: execFileSync("npm", ["config", "get", "cache"], { encoding: "utf8" }).trim() };
  const installed = await run("bash", ["-ec", blocks("README.md", "sh")[0]], { cwd: ROOT, env });
  assert.equal(installed.code, 0, installed.text);
});

test("README's lines install it beside the site, and README's example runs word for word", async () => {
  assert.equal(JSON.parse(readFileSync(join(site, "package.json"))).dependencies["snb-client"], "file:snb-client-0.1.0.tgz");
  writeFileSync(join(site, "example.mjs"), blocks("README.md", "js")[0]);
  await host(cog(), async (url) => {
    const { code, text } = await run(process.execPath, ["example.mjs"], { env: { SNB_BACKEND_URL: url } });
    assert.equal(code, 0, text);
    assert.match(text, /^Oui\.$/m);
  });
});

test("the example for Netlify is installed the same way", () => {
  const lines = blocks("examples/netlify/README.md", "sh")[0];
  for (const line of ["npm pack ./client --pack-destination ~/site", "npm install ./snb-client-0.1.0.tgz"]) {
    assert.ok(lines.includes(line) && blocks("README.md", "sh")[0].includes(line));
  }
});

const TYPED = `
const call: Promise<string> = snb.callSNB("kant", "", "x", { minTokens: 1, topP: 0.5, topK: 3, repetitionPenalty: 1, onToken: async (text: string) => {} });
const full = (error: unknown) => error instanceof snb.SNBError && error.code === "BUSY";
// @ts-expect-error no such option
snb.callSNB("kant", "", "x", { max_tokens: 3 });
// @ts-expect-error another kind
snb.streamSNB("kant", "", "x", { timeoutMs: "9000" });
`;
const skip = !existsSync(TSC) && "npm ci --prefix client installs TypeScript";
test("TypeScript finds the types from a CommonJS module and from an ES module", { skip }, async () => {
  writeFileSync(join(site, "typed.cts"), `import snb = require("snb-client");${TYPED}`);
  writeFileSync(join(site, "typed.mts"), `import * as snb from "snb-client";${TYPED}`);
  const options = ["--noEmit", "--strict", "--module", "node16", "--lib", "es2022,dom,dom.iterable"];
  const { code, text } = await run(process.execPath, [TSC, ...options, "typed.cts", "typed.mts"]);
  assert.equal(code, 0, text);
});

test("both kinds of module have the same error class", () => assert.equal(cjs.SNBError, esm.SNBError));

const REFUSED = [
  [{ max_tokens: 9 }, /no option max_tokens; there are .*maxTokens/],
  [{ timeoutMs: "9000" }, /timeoutMs must be a number from 1 to 2147483647/],
  [{ timeoutMs: Infinity }, /timeoutMs/],
  [{ timeoutMs: 2 ** 31 }, /timeoutMs/],
  [{ maxTokens: 1.5 }, /maxTokens must be a whole number from 1 to 2048 \(the input max_tokens\)/],
  [{ temperature: NaN }, /temperature/],
  [{ topP: 2 }, /top_p/],
  [{ stopSequences: "fin" }, /stopSequences must be a list of strings/],
  [{ systemPrompt: 3 }, /systemPrompt/],
  [{ backends: 3 }, /backends/],
  [{ signal: true }, /signal must be an AbortSignal/],
  [{ history: "x" }, /history/],
  [{ history: [{ role: "system", content: "x" }] }, /history\[0\]/],
  [{ caller: 7 }, /caller/],
  [{ caller: "" }, /caller must be a string of 1 to 256/],
  [{ caller: "x".repeat(257) }, /caller must be a string of 1 to 256/],
  ["vite", /must be an object/],
];
for (const [kind, snb] of Object.entries({ esm, cjs })) {
  test(`${kind}: a misspelt option, and one of another kind, are errors that name them`, async () => {
    const question = ["kant", "", "Bonjour"];
    for (const [options, message] of REFUSED) {
      const refused = { code: "BAD_INPUT", message };
      await assert.rejects(snb.callSNB(...question, options), refused);
      await assert.rejects(snb.startSNB(...question, options), refused);
      const stream = snb.streamSNB(...question, options);
      await assert.rejects(stream.result, refused);
      await assert.rejects(stream[Symbol.asyncIterator]().next(), refused);
    }
    await assert.rejects(snb.callSNB(...question, { onToken: "x" }), { code: "BAD_INPUT", message: /onToken must be a function/ });
    await assert.rejects(snb.pollSNB("x", { patience: 3 }), { code: "BAD_INPUT", message: /patienceMs/ });
    await assert.rejects(snb.cancelSNB("x", { backend: "x" }), { code: "BAD_INPUT", message: /backends/ });
  });

  test(`${kind}: a stream that nobody watches is no unhandled rejection`, async () => {
    const load = kind === "esm" ? 'const snb = await import("snb-client")' : 'const snb = require("snb-client")';
    const file = kind === "esm" ? "lost.mjs" : "lost.cjs";
    const body = `const { result } = snb.streamSNB("descartes", "", "x"); const stream = snb.streamSNB("kant", "", "x", { timeoutMs: 5000 });
      setTimeout(async () => { try { for await (const _ of stream); } catch (error) { console.log("caught", error.code); } }, 100);`;
    writeFileSync(join(site, file), `${load};\n${body}`);
    const { code, text } = await run(process.execPath, [file], { env: { SNB_BACKEND_URL: "http://127.0.0.1:1" } });
    assert.equal(code, 0, text);
    assert.match(text, /caught BACKEND_FAILED/);
  });

  test(`${kind}: an onToken that throws, at once or later, ends the prediction and the call`, async () => {
    for (const onToken of [() => { throw new Error("mine"); }, async () => { throw new Error("mine"); }, () => { throw "mine"; }]) {
      const asked = [];
      await host(cog({ completed: false, asked }), async (url) => {
        const call = snb.callSNB("kant", "", "Bonjour", { backends: url, onToken, timeoutMs: 6000 });
        assert.match(String(await call.catch((error) => error)), /mine/);
        await until(() => asked.at(-1) === "left", 5000);
      });
    }
  });
}

test("every sampling input of predict reaches the server, and how much was read the caller", async () => {
  let sent;
  const read = (incoming) => {
    let body = "";
    incoming.on("data", (piece) => (body += piece)).on("end", () => body && (sent = JSON.parse(body).input));
  };
  await host((incoming, outgoing) => (read(incoming), cog()(incoming, outgoing)), async (backends) => {
    const numbers = { minTokens: 1, topP: 0.5, topK: 3, repetitionPenalty: 1.1, presencePenalty: -1, frequencyPenalty: 1 };
    let result;
    await esm.callSNB("kant", "x".repeat(20_001), "Bonjour", { backends, ...numbers, onResult: (given) => (result = given) });
    const { min_tokens, top_p, top_k, repetition_penalty, presence_penalty, frequency_penalty } = sent;
    assert.deepEqual([min_tokens, top_p, top_k, repetition_penalty, presence_penalty, frequency_penalty], Object.values(numbers));
    assert.equal(result.metrics.rag_context_read, 0.5);
  });
});

for (const when of ["before it is asked", "while it waits"]) {
  test(`a call that is aborted ${when} leaves Node nothing to wait for`, async () => {
    writeFileSync(join(site, "aborted.mjs"), `import { callSNB } from "snb-client";
      const stop = new AbortController();
      const call = callSNB("kant", "", "x", { signal: stop.signal, onToken: () => stop.abort(), timeoutMs: 6000 });
      ${when === "before it is asked" ? "stop.abort();" : ""}
      await call.catch((error) => console.log(error.code, process.getActiveResourcesInfo().filter((name) => name === "Timeout").length));`);
    await host(cog({ completed: false }), async (url) => {
      const { text } = await run(process.execPath, ["aborted.mjs"], { env: { SNB_BACKEND_URL: url } });
      assert.match(text, /^CANCELED 0$/m);
    });
  });
}

test("SNB_TIMEOUT_MS that is no number of milliseconds is BAD_SETTING, and nobody is asked", async () => {
  for (const SNB_TIMEOUT_MS of ["9s", "Infinity", "-1", String(2 ** 31)]) {
    Object.assign(process.env, { SNB_TIMEOUT_MS });
    await assert.rejects(esm.callSNB("kant", "", "x"), { code: "BAD_SETTING", message: /SNB_TIMEOUT_MS must be a number/ });
  }
  delete process.env.SNB_TIMEOUT_MS;
});

/** The environment variables as people write them, with the real servers. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { callSNB, startSNB } from "../src/index.js";
import { environment, host, listen, open, passOn } from "./doors.js";

const OPTIONS = { seed: 7, maxTokens: 12 };
const ask = () => callSNB("kant", "", "Que puis-je savoir ?", OPTIONS);
let doors;
let expected;
before(async () => {
  doors = await open();
  environment({ SNB_BACKEND_URL: doors.cog });
  expected = await ask();
});
after(() => doors.close());
beforeEach(() => environment({}));

test("quotation marks, spaces, capitals and a slash round an address do no harm", async () => {
  const { cog } = doors;
  const spellings = [`${cog}/`, ` ${cog}\n`, `"${cog}"`, `'${cog}/'`, `«\u00a0${cog}\u00a0»`, `“${cog}”, `, `"${cog}","${cog}"`, `${cog} # le pod, à changer`];
  for (const url of [...spellings, cog.replace("http", "HTTP")]) {
    process.env.SNB_BACKEND_URL = url;
    assert.equal(await ask(), expected, url);
  }
  assert.equal(await callSNB("kant", "", "Que puis-je savoir ?", { ...OPTIONS, backends: "" }), expected, "no option is none");
});

test("a host's bare name and HTTPS:// are asked by https", async (t) => {
  const { fetch } = globalThis;
  const asked = t.mock.method(globalThis, "fetch", (url, init) => {
    assert.match(String(url), /^https:/);
    return fetch(String(url).replace("https:", "http:"), init); // stands in for a host with TLS
  }).mock;
  const { host } = new URL(doors.cog);
  for (const url of [host, `${host}/`, `HTTPS://${host}`, `https://${host}/`]) {
    process.env.SNB_BACKEND_URL = url;
    assert.equal(await ask(), expected, url);
  }
  assert.ok(asked.callCount());
});

for (const prefix of ["/gradio_api", "gradio_api", "/gradio_api/", '"/gradio_api"', "/somewhere"]) {
  test(`with SNB_API_PREFIX=${prefix} Gradio is asked, and so is a host that is Cog now`, async (t) => {
    const warn = t.mock.method(console, "warn", () => {}).mock;
    for (const url of [doors.page, doors.cog, doors.locked]) {
      const fresh = { SNB_OPENAI_TOKEN: prefix }; // nothing is remembered of a host from another configuration
      environment({ SNB_BACKEND_URL: url, SNB_API_PREFIX: prefix, SNB_API_KEY: url === doors.locked ? doors.key : "", ...fresh });
      assert.equal(await ask(), expected, url);
      assert.equal(await ask(), expected, url);
    }
    const warned = warn.calls.map(({ arguments: [line] }) => line);
    assert.equal(warned.length, prefix === "/somewhere" ? 3 : 2, warned.join());
    assert.match(warned.at(-1), new RegExp(`SNB_API_PREFIX.*${new URL(doors.locked).host}.*Cog`));
  });
}

test("where SNB_API_PREFIX fits, the key of Cog is not sent", async (t) => {
  const fetch = t.mock.method(globalThis, "fetch").mock;
  environment({ SNB_BACKEND_URL: `${doors.page}/`, SNB_API_PREFIX: "/gradio_api", SNB_API_KEY: doors.key });
  assert.equal(await ask(), expected);
  assert.ok(!fetch.calls.some(({ arguments: [, init] }) => new Headers(init?.headers).has("authorization")));
});

for (const nothing of [undefined, "", " ", '""', "  # vide = HF par défaut"]) {
  test(`with ${JSON.stringify(nothing)} for an address it is the Space of the plan`, async (t) => {
    const fetch = t.mock.method(globalThis, "fetch", async () => new Response("", { status: 500 })).mock;
    if (nothing !== undefined) process.env.SNB_BACKEND_URL = nothing;
    const error = await ask().catch((error) => error);
    assert.equal(error.attempts[0].backend, "fjdaz-spinoza-nb.hf.space");
    assert.equal(String(fetch.calls[0].arguments[0]), "https://fjdaz-spinoza-nb.hf.space/gradio_api/info");
  });
}

for (const [value, hint] of [
  ["https://ton-pod...", /ton-pod\.\.\..*https:\/\/abc123-5000/],
  ["https://POD-7860.proxy.runpod.net", /POD-7860/],
  ["replicate:deployments/COMPTE/spinoza", /COMPTE/],
  ["https://${POD}-5000.proxy.runpod.net", /\$\{POD\}/],
  ["<adresse>", /<adresse>/],
  ["htps://a.example", /htps/],
  ["https//a.example", /https\/\/a/],
  ["https://a b.example", /a b/],
  ["https://name:Secret@a.example", /write https:\/\/a\.example/],
  ["https://a.example/?key=Secret", /write https:\/\/a\.example/],
  ["https://huggingface.co/spaces/FJDaz/spinoza_nb", /write fjdaz-spinoza-nb\.hf\.space/],
  ["https://replicate.com/owner/name", /write replicate:owner\/name/],
  ["replicate:owner", /replicate:owner\/name/],
  ["openai:https://a.example/v1", /write openai:https:\/\/a\.example\/v1#/],
  ["openai:#model", /SNB_BACKEND_URL/],
]) {
  test(`${value} is refused before anyone is asked, with what to write instead`, async (t) => {
    const fetch = t.mock.method(globalThis, "fetch").mock;
    const log = t.mock.method(console, "error", () => {}).mock;
    process.env.SNB_BACKEND_URL = `${doors.cog},${value}`;
    for (const asked of [ask, () => startSNB("kant", "", "Bonjour")]) {
      await assert.rejects(asked(), (error) => {
        assert.equal(error.code, "BAD_SETTING");
        assert.match(error.message, /SNB_BACKEND_URL/);
        assert.match(error.message, hint);
        assert.doesNotMatch(error.message, /Secret/);
        return true;
      });
    }
    assert.equal(fetch.callCount(), 0);
    assert.match(log.calls[0].arguments[0], hint);
  });
}

/** One address before a server that `to()` exchanges; `forget()` makes it drop requests on the connections now open. */
async function moving(first = doors.cog) {
  const state = { upstream: first };
  const forgotten = new Set();
  const connections = new Set();
  const pass = (incoming, outgoing) => {
    connections.add(incoming.socket);
    if (forgotten.has(incoming.socket)) return incoming.socket.destroy();
    incoming.pipe(passOn(state.upstream, incoming, outgoing));
  };
  const server = createServer(pass);
  const port = await listen(server);
  const reopen = () => new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  const close = () => new Promise((resolve) => (server.close(resolve), server.closeAllConnections()));
  const forget = () => connections.forEach((socket) => forgotten.add(socket));
  const to = (upstream) => (state.upstream = upstream);
  return { url: `http://127.0.0.1:${port}`, to, close, forget, reopen };
}

const thirty = (question) => Promise.all(Array.from({ length: 30 }, question));

test("a host that is of the other kind now, or is back, is asked as what it is, by thirty at once", async () => {
  const host = await moving();
  process.env.SNB_BACKEND_URL = host.url;
  for (const upstream of [doors.cog, doors.page, doors.cog]) {
    host.to(upstream);
    assert.deepEqual(new Set(await thirty(ask)), new Set([expected]));
  }
  for (const upstream of [doors.page, doors.space]) {
    host.to(upstream); // the second is a Gradio app with other endpoints
    assert.ok(await ask());
  }
  await host.close();
  await thirty(() => assert.rejects(ask(), { code: "BACKEND_FAILED", message: /ECONN|SOCKET/ }));
  host.to(doors.page);
  await host.reopen();
  assert.deepEqual(new Set(await thirty(ask)), new Set([expected]));
  await host.close();
});

for (const door of ["cog", "page", "space", "replicate"]) {
  test(`a connection that the host has closed while it was idle does no harm: ${door}`, async (t) => {
    const host = await moving(doors[door]);
    t.after(host.close);
    const model = { SNB_BACKEND_URL: "replicate:owner/spinoza", REPLICATE_API_TOKEN: "r8_test", REPLICATE_API_BASE_URL: host.url };
    environment(door === "replicate" ? model : { SNB_BACKEND_URL: host.url });
    const creations = async () =>
      (await (await fetch(`${doors.replicate}/_test/log`)).json()).filter(({ method, path }) => method === "POST" && /predictions$/.test(path));
    for (let times = 0; times < 2; times++) {
      const before_ = (await creations()).length;
      const [first, ...others] = await Promise.all(Array.from({ length: 4 }, ask));
      assert.ok(first && others.every((text) => text === first));
      if (door === "replicate") assert.equal((await creations()).length, before_ + 4, "nothing is paid for twice");
      host.forget();
    }
  });
}

for (const [status, lost] of [[301, true], [302, true], [307, false], [308, false]]) {
  test(`an address that redirects with ${status} is told as such where the question would be lost`, async () => {
    let target;
    await host((incoming, outgoing) => outgoing.writeHead(status, { location: target + incoming.url }).end(), async (url) => {
      target = doors.cog; // which is asked by PUT
      process.env.SNB_BACKEND_URL = url;
      assert.equal(await ask(), expected);
      target = doors.page;
      if (!lost) return assert.equal(await ask(), expected);
      await assert.rejects(ask(), { code: "BACKEND_FAILED", message: new RegExp(`redirects \\(${status}\\) to ${doors.page}`) });
    });
  });
}

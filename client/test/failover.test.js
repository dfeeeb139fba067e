/** What goes wrong on the way: hosts that are made to fail stand before, or instead of, a real Cog server. */

import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { callSNB, pollSNB, startSNB, streamSNB } from "../src/index.js";
import { environment, host, open } from "./doors.js";

const QUESTION = "Qu’est-ce que le temps ?";
const OPTIONS = { seed: 2, maxTokens: 40 };
let doors;
let expected;
before(async () => {
  doors = await open();
  environment({ SNB_BACKEND_URL: doors.cog });
  expected = await callSNB("kant", "", QUESTION, OPTIONS);
});
after(() => doors.close());
beforeEach(() => environment({}));

/** Passes everything on to the Cog server; `change(event, response, said)` may spoil a prediction's stream, `said` being the pieces before. */
function relay(change) {
  let said = 0;
  return (incoming, outgoing) => {
    const streamed = /event-stream/.test(incoming.headers.accept);
    const upstream = request(doors.cog + incoming.url, { method: incoming.method, headers: incoming.headers }, (reply) => {
      outgoing.writeHead(reply.statusCode, reply.headers);
      let rest = "";
      reply.setEncoding("utf8").on("data", (chunk) => {
        if (!streamed) return outgoing.write(chunk);
        const events = (rest + chunk).split(/(?<=\n\n)/);
        rest = events.at(-1).endsWith("\n\n") ? "" : events.pop();
        for (const event of events) change(Buffer.from(event), outgoing, event.startsWith("event: output") ? said++ : said);
      });
      reply.on("end", () => outgoing.spoiled || outgoing.end());
    });
    outgoing.on("close", () => upstream.destroy());
    upstream.on("error", () => outgoing.destroy());
    incoming.pipe(upstream);
  };
}

async function attempts(backends, options = {}) {
  const stream = streamSNB("kant", "", QUESTION, { ...OPTIONS, backends, ...options });
  let text = "";
  for await (const piece of stream) text += piece;
  assert.equal(text, expected);
  return (await stream.result).attempts;
}

const page = (status) => (incoming, outgoing) => {
  outgoing.writeHead(status, { "content-type": "text/html" }).end("<!doctype html><title>Secret</title>");
};

test("a refused connection and an unknown name are left for the next", async () => {
  const closed = await host(() => {}, (url) => url);
  const seen = await attempts([closed, "http://nowhere.invalid", doors.cog]);
  assert.deepEqual(seen.map(({ code }) => code), ["BACKEND_FAILED", "BACKEND_FAILED", "OK"]);
  assert.match(seen[0].reason, /ECONNREFUSED/);
  assert.match(seen[1].reason, /ENOTFOUND|EAI_AGAIN/);
});

test("who just failed is not asked again at once", async () => {
  await host(page(500), async (url) => {
    assert.equal((await attempts([url, doors.cog])).length, 2);
    assert.equal((await attempts([url, doors.cog])).length, 1);
  });
});

for (const status of [200, 404, 503, 524]) {
  test(`a page of HTML with ${status} is a failed backend, and its text is not repeated`, async () => {
    await host(page(status), async (url) => {
      const seen = await attempts([url, doors.cog]);
      assert.equal(seen[0].code, "BACKEND_FAILED");
      assert.doesNotMatch(seen[0].reason, /Secret/);
    });
  });
}

test("a host that never answers gets its share of the time, and no more", async () => {
  await host(() => {}, async (url) => {
    const seen = await attempts([url, doors.cog], { timeoutMs: 9000 });
    assert.equal(seen[0].code, "TIMEOUT");
  });
});

test("all failing, each one's reason is told", async () => {
  await host(page(500), async (url) => {
    const backends = [url, "http://nowhere.invalid"];
    const error = await callSNB("kant", "", QUESTION, { backends }).catch((error) => error);
    assert.equal(error.code, "ALL_BACKENDS_FAILED");
    assert.match(error.message, /500/);
    assert.match(error.message, /nowhere\.invalid/);
    assert.equal(error.attempts.length, 2);
  });
});

test("bytes in any pieces give the same text", async () => {
  const single = (event, outgoing) => event.forEach((byte) => outgoing.write(Buffer.of(byte)));
  await host(relay(single), (url) => attempts([url]));
});

for (const [where, spoil] of [
  ["between two events", (event) => event],
  ["inside an event", (event) => event.subarray(0, event.length - 5)],
  ["inside a character", () => Buffer.from("event: output\ndata: {\"chunk\":\"é").subarray(0, -1)],
]) {
  test(`a stream cut ${where} goes on where it stopped`, async () => {
    let cut = false;
    const change = (event, outgoing, said) => {
      if (outgoing.spoiled) return;
      if (cut || said < 4) return outgoing.write(event);
      cut = outgoing.spoiled = true;
      outgoing.write(spoil(event), () => outgoing.destroy());
    };
    await host(relay(change), async (url) => assert.equal((await attempts([url])).length, 1));
    assert.ok(cut);
  });
}

test("after text was shown nobody else is asked, unless told to", async () => {
  let cuts = 0;
  const cut = (event, outgoing) => {
    if (outgoing.spoiled) return;
    if (cuts === 0 && !event.includes("event: output")) return outgoing.write(event);
    outgoing.spoiled = true;
    if (cuts++ === 0) outgoing.write(event, () => outgoing.destroy());
    else outgoing.destroy();
  };
  await host(relay(cut), async (url) => {
    const backends = [url, doors.cog];
    const shown = [];
    const call = callSNB("kant", "", QUESTION, { ...OPTIONS, backends, onToken: (text) => shown.push(text) });
    await assert.rejects(call, { code: "BACKEND_FAILED" });
    assert.ok(shown.length);
  });
  await host(relay(cut), async (url) => {
    cuts = 0;
    let text = "";
    const onRestart = () => (text = "");
    const onToken = (piece) => (text += piece);
    const options = { ...OPTIONS, backends: [url, doors.cog], onToken, onRestart };
    assert.equal(await callSNB("kant", "", QUESTION, options), expected);
    assert.equal(text, expected);
  });
  await host(relay(cut), async (url) => {
    cuts = 0;
    assert.equal(await callSNB("kant", "", QUESTION, { ...OPTIONS, backends: [url, doors.cog] }), expected);
  });
});

test("a host that hangs in mid-answer is left for the next", async () => {
  const hangs = (event, outgoing, said) => said < 4 && outgoing.write(event); // and the connection stays
  await host(relay(hangs), async (url) => {
    const options = { ...OPTIONS, backends: [url, doors.cog], timeoutMs: 8000 };
    assert.equal(await callSNB("kant", "", QUESTION, options), expected);
  });
});

test("a class that fails together is one failure", async () => {
  await host(page(500), async (url) => {
    const backends = [url, doors.cog];
    await Promise.all(Array.from({ length: 8 }, () => callSNB("kant", "", QUESTION, { ...OPTIONS, backends })));
    const now = Date.now;
    Date.now = () => now() + 11_000; // past the first rest, not past a second
    try {
      assert.deepEqual((await attempts(backends)).map(({ code }) => code), ["BACKEND_FAILED", "OK"]);
    } finally {
      Date.now = now;
    }
  });
});

test("a model that is loading is waited for", async () => {
  let asked = 0;
  const change = (event, outgoing) => outgoing.write(event);
  const pass = relay(change);
  const loading = (incoming, outgoing) => {
    if (incoming.method !== "PUT" || ++asked > 2) return pass(incoming, outgoing);
    const body = { error: "Setup has not finished yet. Wait until it has finished, or GET /health-check for status." };
    if (incoming.headers.accept === "text/event-stream") outgoing.writeHead(406).end(); // as coglet 0.23.1 does
    else outgoing.writeHead(503, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
  await host(loading, async (url) => {
    assert.deepEqual((await attempts([url])).map(({ code }) => code), ["COLD_START", "COLD_START", "OK"]);
  });
  asked = 0;
  await host(loading, async (url) => {
    const handle = await startSNB("kant", "", QUESTION, { ...OPTIONS, backends: [url] });
    assert.equal((await pollSNB(handle, { backends: [url] })).status, "starting");
  });
});

test("a full server is asked again for a while, then left", async () => {
  const full = (incoming, outgoing) => {
    if (incoming.method === "PUT") outgoing.writeHead(409).end();
    else outgoing.setHeader("content-type", "application/json").end('{"cog_version":"0.23.1"}');
  };
  await host(full, async (url) => {
    const seen = await attempts([url, doors.cog]);
    assert.deepEqual(seen.map(({ code }) => code), ["BUSY", "OK"]);
    await assert.rejects(callSNB("kant", "", QUESTION, { backends: [url], timeoutMs: 1500 }), { code: "BUSY" });
  });
});

test("a question moves to the next backend when its own goes away", async () => {
  let gone = false;
  const pass = relay((event, outgoing) => outgoing.write(event));
  const leaving = (incoming, outgoing) => (gone ? outgoing.destroy() : pass(incoming, outgoing));
  await host(leaving, async (url) => {
    const backends = [url, doors.cog];
    let look = { handle: await startSNB("kant", "", QUESTION, { ...OPTIONS, backends }) };
    gone = true;
    for (let i = 0; i < 9 && look.status !== "succeeded"; i++) look = await pollSNB(look.handle, { backends });
    assert.equal(look.text, expected);
    assert.equal(look.backend, new URL(doors.cog).host);
  });
});

test("with nothing set, it is the Space of the plan", async () => {
  const error = await callSNB("kant", "", QUESTION, { timeoutMs: 800 }).catch((error) => error);
  assert.equal(error.attempts[0].backend, "fjdaz-spinoza-nb.hf.space");
});

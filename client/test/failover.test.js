/** Failures on the way: hosts that are made to fail, in front of a real Cog server or in its place. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { callSNB, pollSNB, startSNB, streamSNB } from "../src/index.js";
import example from "../examples/netlify/netlify/functions/ask.mjs";
import { environment, host, open, passOn, until } from "./doors.js";

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

/** Relays to the Cog server; `change(event, response, said)` writes a stream's event, or spoils it; `said` counts earlier pieces. */
function relay(change) {
  let said = 0;
  return (incoming, outgoing) => {
    const streamed = /event-stream/.test(incoming.headers.accept);
    const back = (reply) => {
      let rest = "";
      reply.setEncoding("utf8").on("data", (chunk) => {
        if (!streamed) return outgoing.write(chunk);
        const events = (rest + chunk).split(/(?<=\n\n)/);
        rest = events.at(-1).endsWith("\n\n") ? "" : events.pop();
        for (const event of events) change(Buffer.from(event), outgoing, event.startsWith("event: output") ? said++ : said);
      });
      reply.on("end", () => outgoing.spoiled || outgoing.end());
    };
    incoming.pipe(passOn(doors.cog, incoming, outgoing, { back }));
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

const cog = (answer) => (incoming, outgoing) =>
  incoming.method === "GET" ? outgoing.setHeader("content-type", "application/json").end('{"cog_version":"0.23.1"}') : answer(incoming, outgoing);

for (const status of [200, 400, 401, 403, 404, 422, 503, 524]) {
  test(`a page of HTML with ${status} is a failed backend, and its text is not repeated`, async () => {
    for (const answer of [page(status), cog(page(status))]) {
      await host(answer, async (url) => {
        const seen = await attempts([url, doors.cog]);
        assert.deepEqual(seen.map(({ code }) => code), [[401, 403].includes(status) ? "UNAUTHORIZED" : "BACKEND_FAILED", "OK"]);
        assert.doesNotMatch(seen[0].reason, /Secret/);
      });
    }
  });
}

test("a model that wants other inputs is a failed backend", async () => {
  const body = { detail: [{ loc: ["body", "input", "prompt"], msg: "Field required", type: "missing" }] };
  await host(cog((incoming, outgoing) => outgoing.writeHead(422).end(JSON.stringify(body))), async (url) => {
    assert.equal((await attempts([url, doors.cog]))[0].code, "BACKEND_FAILED");
  });
});

/** Speaks as Gradio's /call does: https://www.gradio.app/guides/querying-gradio-apps-with-curl */
const gradio = (name, answer) => (incoming, outgoing) => {
  const json = (value) => outgoing.setHeader("content-type", "application/json").end(JSON.stringify(value));
  if (incoming.url.endsWith("/info")) return json({ named_endpoints: { [name]: { parameters: [{ parameter_name: "user_message" }] } } });
  if (incoming.method === "POST") return json({ event_id: "an-event" });
  if (!incoming.url.includes("/call/")) return outgoing.writeHead(404).end();
  outgoing.writeHead(200, { "content-type": "text/event-stream" });
  return answer((event, data) => outgoing.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`), outgoing);
};

for (const [code, next] of [["UNAUTHORIZED", 2], ["TIMEOUT", 2], ["BACKEND_FAILED", 2], ["BUSY", 2], ["COLD_START", 2], ["BAD_INPUT", 1]]) {
  test(`what the page calls ${code} reaches the caller as ${code}`, async () => {
    const refuse = (send) => send("error", { error: `${code}: what it says.`, title: code, duration: null, visible: true });
    await host(gradio("/answer", refuse), async (url) => {
      const error = await callSNB("kant", "", QUESTION, { backends: [url], timeoutMs: 1500 }).catch((thrown) => thrown);
      assert.equal(error.message, code === "BACKEND_FAILED" ? `${code}: the Space could not answer` : `${code}: what it says.`);
      const call = callSNB("kant", "", QUESTION, { ...OPTIONS, backends: [url, doors.cog], timeoutMs: 20_000 });
      await (next === 1 ? assert.rejects(call, { code }) : call.then((text) => assert.equal(text, expected)));
    });
  });
}

test("another app's words are not repeated, whatever title they have", async () => {
  for (const data of [{ error: "Secret", title: "Error" }, { error: "BAD_INPUT: Secret", title: "Error" }, null, "Secret"]) {
    await host(gradio("/chat_function", (send) => send("error", data)), async (url) => {
      const error = await callSNB("kant", "", QUESTION, { backends: [url] }).catch((thrown) => thrown);
      assert.deepEqual([error.code, error.message.includes("Secret")], ["BACKEND_FAILED", false]);
    });
  }
});

test("the first Space's errors, which it gives for answers, are none; what begins with « Erreur : » is", async () => {
  for (const [answer, code] of [["❌ Erreur : Secret", "BACKEND_FAILED"], ["⚠️ Secret", "BACKEND_FAILED"], ["Erreur\u00a0: tu confonds.", undefined]]) {
    await host(gradio("/chat_function", (send) => send("complete", ["", [[QUESTION, answer]]])), async (url) => {
      const call = callSNB("kant", "", QUESTION, { backends: [url] });
      if (code) await assert.rejects(call, (error) => error.code === code && !/Secret/.test(error.message));
      else assert.equal(await call, answer);
    });
  }
});

test("a Space where the question has waited is left at the deadline with what there is", async () => {
  for (const name of ["/answer", "/chat_function"]) {
    let text = "";
    let left = false;
    const slow = (send, outgoing) => {
      const say = () => send("generating", name === "/answer" ? [(text += "encore ")] : ["", [[QUESTION, (text += "encore ")]]]);
      const waiting = setTimeout(() => (timer = setInterval(say, 20)), 800);
      let timer = waiting;
      outgoing.on("close", () => (clearInterval(timer), clearTimeout(waiting), (left = true)));
    };
    await host(gradio(name, slow), async (url) => {
      let result;
      const answer = await callSNB("kant", "", QUESTION, { backends: [url], timeoutMs: 2500, onResult: (value) => (result = value) });
      assert.ok(answer && text.startsWith(answer));
      assert.equal(result.metrics.finish_reason, "deadline");
      await until(() => left);
    });
  }
});

test("a Space whose queue is full is asked again", async () => {
  let asked = 0;
  const answers = gradio("/answer", (send) => send("complete", ["Oui."]));
  const full = (incoming, outgoing) => {
    if (incoming.method !== "POST" || asked++) return answers(incoming, outgoing);
    outgoing.writeHead(503, { "content-type": "application/json" }).end('{"detail":"Queue is full. Max size is 200 and size is 200."}');
  };
  await host(full, async (url) => {
    let result;
    assert.equal(await callSNB("kant", "", QUESTION, { backends: [url], onResult: (value) => (result = value) }), "Oui.");
    assert.deepEqual(result.attempts.map(({ code }) => code), ["BUSY", "OK"]);
    assert.deepEqual(result.metrics, {}, "an older Space has none");
  });
});

test("who looks again and again at a question in the queue asks no sooner than the server wants", async () => {
  const times = [];
  const full = cog((incoming, outgoing) => {
    times.push(Date.now());
    outgoing.writeHead(409, { "retry-after": "1" }).end();
  });
  await host(full, async (url) => {
    let look = { handle: await startSNB("kant", "", QUESTION, { backends: [url] }) };
    while (times.length < 3) {
      look = await pollSNB(look.handle, { backends: [url], patienceMs: 50 });
      assert.equal(look.status, "queued");
    }
    assert.ok(times[1] - times[0] >= 1000 && times[2] - times[1] >= 1000);
  });
});

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

test("JSON that is no object is a failed backend", async () => {
  for (const body of ["null", '""', "[]"]) {
    const json = (_, outgoing) => outgoing.setHeader("content-type", "application/json").end(body);
    const said = (_, outgoing) => outgoing.writeHead(200, { "content-type": "text/event-stream" }).end(`event: output\ndata: ${body}\n\nevent: completed\ndata: ${body}\n\n`);
    for (const answer of [json, cog(said), gradio("/answer", (send, outgoing) => outgoing.end(`event: complete\ndata: ${body}\n\n`))]) {
      await host(answer, async (url) => {
        assert.deepEqual((await attempts([url, doors.cog])).map(({ code }) => code), ["BACKEND_FAILED", "OK"]);
      });
    }
  }
});

test("an answer that breaks, and when it is asked for again ends otherwise, is none", async () => {
  let asked = 0;
  const event = (name, data) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
  const diverging = cog((_, outgoing) => {
    outgoing.writeHead(200, { "content-type": "text/event-stream" });
    if (!asked++) outgoing.end(event("output", { chunk: "La liberté est la néce" }));
    else outgoing.end(event("output", { chunk: "La liberté est vertu." }) + event("completed", { status: "succeeded" }));
  });
  await host(diverging, (url) => assert.rejects(callSNB("kant", "", QUESTION, { backends: [url] }), { code: "BACKEND_FAILED" }));
});

test("a stream that is cut goes on where it stopped", async () => {
  let cut = false;
  const change = (event, outgoing, said) => {
    if (outgoing.spoiled) return;
    if (cut || said < 4) return outgoing.write(event);
    cut = outgoing.spoiled = true;
    outgoing.write(Buffer.from('event: output\ndata: {"chunk":"é').subarray(0, -1), () => outgoing.destroy()); // inside a character
  };
  await host(relay(change), async (url) => assert.equal((await attempts([url])).length, 1));
  assert.ok(cut);
});

test("after text was shown nobody else is asked, unless told to", async () => {
  let first; // the first stream, which stops after a piece until the test breaks it; later ones break at once
  const cut = (event, outgoing) => {
    if (outgoing.spoiled) return;
    if (!first) outgoing.write(event);
    outgoing.spoiled = first || event.includes("event: output");
    if (first) outgoing.destroy();
    else if (outgoing.spoiled) first = outgoing;
  };
  let text = "";
  const onToken = (piece) => {
    text += piece;
    first.destroy();
  };
  await host(relay(cut), async (url) => {
    const call = callSNB("kant", "", QUESTION, { ...OPTIONS, backends: [url, doors.cog], onToken });
    await assert.rejects(call, { code: "BACKEND_FAILED" });
    assert.ok(text);
  });
  await host(relay(cut), async (url) => {
    first = undefined;
    text = "";
    const onRestart = () => assert.fail("nothing begins anew");
    const options = { ...OPTIONS, backends: [url, "http://nowhere.invalid"], timeoutMs: 3000, onToken, onRestart };
    await assert.rejects(callSNB("kant", "", QUESTION, options), { code: "ALL_BACKENDS_FAILED" });
    assert.ok(text);
  });
  await host(relay(cut), async (url) => {
    first = undefined;
    text = "";
    const onRestart = () => (text = "");
    const options = { ...OPTIONS, backends: [url, doors.cog], onToken, onRestart };
    assert.equal(await callSNB("kant", "", QUESTION, options), expected);
    assert.equal(text, expected);
  });
  await host(relay(cut), async (url) => {
    first = undefined;
    const call = callSNB("kant", "", QUESTION, { ...OPTIONS, backends: [url, doors.cog] });
    await until(() => first?.destroy());
    assert.equal(await call, expected);
  });
});

test("a reply that stops in its middle is told as the time that is over", async () => {
  const stops = (incoming, outgoing) => outgoing.writeHead(200, { "content-type": "application/json" }).write("{");
  await host(stops, async (url) => {
    environment({ REPLICATE_API_TOKEN: "r8_test", REPLICATE_API_BASE_URL: url });
    for (const backend of ["replicate:owner/spinoza", url]) {
      await assert.rejects(callSNB("kant", "", QUESTION, { backends: [backend], timeoutMs: 1000 }), { code: "TIMEOUT" }, backend);
    }
  });
});

test("the example's answer that is canceled, which a platform may do instead of aborting the request, ends the question", async () => {
  let [asked, left] = [false, false];
  const silent = cog((_, outgoing) => (asked = outgoing.on("close", () => (left = true))));
  await host(silent, async (url) => {
    environment({ SNB_BACKEND_URL: url });
    const body = JSON.stringify({ philosopher: "kant", userMessage: QUESTION });
    const response = await example(new Request("http://site/api/ask", { method: "POST", body }));
    await until(() => asked);
    await response.body.cancel();
    await until(() => left, 30_000); // sooner than the call's timeout
  });
});

test("a host that hangs in mid-answer is left for the next", async () => {
  const hangs = (event, outgoing, said) => said < 4 && outgoing.write(event); // and the connection stays open
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
    Date.now = () => now() + 11_000; // past the rest after one failure, not past that after two
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
  await host(cog((incoming, outgoing) => outgoing.writeHead(409).end()), async (url) => {
    const seen = await attempts([url, doors.cog]);
    assert.deepEqual(seen.map(({ code }) => code), ["BUSY", "OK"]);
    await assert.rejects(callSNB("kant", "", QUESTION, { backends: [url], timeoutMs: 1500 }), { code: "BUSY" });
  });
});

test("a start ends with its time and with its caller, and one whose reply is lost is sent again as the same prediction", async () => {
  await host(cog(() => {}), async (url) => {
    const start = (options) => startSNB("kant", "", QUESTION, { backends: [url], ...options });
    await assert.rejects(start({ timeoutMs: 300 }), { code: "TIMEOUT" });
    await assert.rejects(start({ signal: AbortSignal.abort() }), { code: "CANCELED" });
  });
  const [pass, asked] = [relay(() => {}), []];
  const losing = (incoming, outgoing) => (incoming.method === "PUT" && asked.push(incoming.url) === 1 ? outgoing.destroy() : pass(incoming, outgoing));
  await host(losing, (url) => startSNB("kant", "", QUESTION, { ...OPTIONS, backends: [url] }));
  assert.deepEqual(asked, [asked[0], asked[0]]);
});

test("an answer outlives looks that do not reach its host, also one that has waited for a place", async () => {
  const ids = new Set();
  const pass = relay((event, outgoing) => outgoing.write(event));
  let [full, missing] = [true, 0];
  const shaky = (incoming, outgoing) => {
    if (incoming.method === "GET" && missing-- > 0) return page(502)(incoming, outgoing);
    if (incoming.method === "PUT" && full) return (full = false), outgoing.writeHead(409).end();
    if (incoming.method === "PUT" && !ids.size) missing = 6;
    if (incoming.method === "PUT") ids.add(incoming.url);
    return pass(incoming, outgoing);
  };
  await host(shaky, async (url) => {
    let look = { handle: await startSNB("kant", "", QUESTION, { ...OPTIONS, backends: [url] }) };
    await until(async () => !["queued", "processing"].includes((look = await pollSNB(look.handle, { backends: [url] })).status));
    assert.deepEqual([look.text, ids.size], [expected, 1]);
  });
});

for (const [how, end] of [["goes away", (_, outgoing) => outgoing.destroy()], ["refuses with 401", page(401)], ["refuses with 422", page(422)]]) {
  test(`a question moves to the next backend when its own ${how}`, async () => {
    let gone = false;
    const pass = relay((event, outgoing) => outgoing.write(event));
    await host((incoming, outgoing) => (gone ? end : pass)(incoming, outgoing), async (url) => {
      const backends = [url, doors.cog];
      let look = { handle: await startSNB("kant", "", QUESTION, { ...OPTIONS, backends }) };
      gone = true;
      for (let i = 0; i < 9 && look.status !== "succeeded"; i++) look = await pollSNB(look.handle, { backends });
      assert.equal(look.text, expected);
      assert.equal(look.backend, new URL(doors.cog).host);
    });
  });
}

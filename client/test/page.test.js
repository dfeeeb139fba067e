/** The example's page in headless Chromium, with the real servers. SCREENSHOTS=1 saves screenshots in build/client/. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { pipeline } from "node:stream";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { events } from "../src/events.js";
import { camera, launch, skip } from "./browser.js";
import { ENDLESS, environment, listen, open, passOn, until } from "./doors.js";
import { serve } from "./site.js";

const shot = camera("client");
const SHORT = 24; // tokens of an answer that a test waits for
const hosts = [];
let browser;
let doors;
let page;
let site;

before(async () => {
  if (skip) return;
  [browser, doors] = await Promise.all([launch(), open()]);
});
after(async () => {
  await browser?.close();
  await doors?.close();
});
beforeEach(async () => {
  if (!skip) page = await browser.newPage({ viewport: { width: 390, height: 844 } });
});
afterEach(async () => {
  await page?.close();
  site?.close();
  for (const host of hosts.splice(0)) host.close().closeAllConnections();
});

async function visit(variables, limits) {
  environment(variables);
  process.env.SNB_TIMEOUT_MS = "9000";
  site = await serve(limits);
  await page.goto(site.url);
}

async function ask(message, philosopher = "kant") {
  await page.selectOption("select", philosopher);
  await page.fill("textarea", message);
  await page.click("text=Demander");
}

const answer = () => page.innerText("article.answer .text");
const said = () => page.locator("article").allInnerTexts();
const idle = () => page.waitForSelector("#stop", { state: "hidden", timeout: 120_000 });

/** Opens the page with a function that answers with these lines; returns the questions that it is asked. */
async function scripted(...lines) {
  const asked = [];
  await visit({ SNB_BACKEND_URL: "http://nowhere.invalid" });
  await page.route("**/api/ask", (route) => {
    asked.push(route.request().postDataJSON());
    route.fulfill({ body: lines.map((line) => `${JSON.stringify(line)}\n`).join("") });
  });
  return asked;
}

/** A host before the Cog server that sets each answer's length in tokens, and may pace it in ms; resolves to its URL. */
async function answering(tokens, pace) {
  const host = createServer((incoming, outgoing) => {
    let body = "";
    incoming.setEncoding("utf8").on("data", (text) => (body += text));
    incoming.on("end", () => {
      const { "content-length": _, ...headers } = incoming.headers;
      const question = body && JSON.parse(body);
      if (question) Object.assign(question.input, { min_tokens: tokens, max_tokens: tokens });
      const streamed = /event-stream/.test(incoming.headers.accept);
      const back = (reply) => pipeline(pace && streamed ? paced(reply, pace) : reply, outgoing, () => {});
      passOn(doors.cog, incoming, outgoing, { headers, back }).end(question && JSON.stringify(question));
    });
  });
  hosts.push(host);
  return `http://127.0.0.1:${await listen(host)}`;
}

/** Yields the events of a stream with `ms` between two. */
async function* paced(reply, ms) {
  for await (const { event, data } of events(reply)) {
    yield `event: ${event}\ndata: ${data}\n\n`;
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
}

test("a question is answered, and the next", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: await answering(SHORT) });
  await ask("Que puis-je savoir ?");
  await until(() => page.isEnabled("text=Demander"));
  assert.ok((await answer()).length > 10);
  await shot(page, "answer");
  await ask("x".repeat(300));
  await until(() => page.isEnabled("text=Demander"));
  assert.equal(await page.locator("article.answer").count(), 2);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390, "nothing is wider than a phone");
});

test("a cold model is said to wake up, and answers", { skip }, async () => {
  const variables = { SNB_BACKEND_URL: "replicate:owner/spinoza", REPLICATE_API_TOKEN: "r8_test" };
  await visit({ ...variables, REPLICATE_API_BASE_URL: doors.replicate });
  process.env.SNB_TIMEOUT_MS = "3000";
  const cold = { method: "POST", cold: 6, path: "/v1/predictions", times: 3 }; // the first prediction's cancel may use one
  await fetch(`${doors.replicate}/_test/faults`, { method: "POST", body: JSON.stringify(cold) });
  await ask("Que puis-je espérer ?");
  await until(async () => /se réveille/.test(await page.textContent("#state")));
  await shot(page, "cold");
  await until(async () => (await answer()).length > 5);
});

test("nothing can be sent before the page listens, and first questions that do not come hold nobody up", { skip }, async () => {
  let deliver;
  const late = new Promise((resolve) => (deliver = resolve));
  await page.route("**/page.js", (route) => late.then(() => route.continue()));
  await page.route("**/questions.json", () => {});
  const visited = visit({ SNB_BACKEND_URL: await answering(SHORT) });
  for (const field of ["select", "textarea", "text=Demander"]) assert.ok(await page.isDisabled(field), field);
  deliver();
  await visited;
  await ask("Que faire ?");
  await until(async () => (await said()).length === 2 && (await answer()).length > 5);
});

test("a function that the platform refuses, or cuts, is gone round", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: await answering(SHORT) });
  const cut = createServer((incoming, outgoing) => {
    const breakOff = () => outgoing.writeHead(200).write('{"text":""}\n', () => outgoing.destroy());
    incoming.resume().on("end", breakOff); // any earlier, the reply could be lost with the connection
  });
  hosts.push(cut);
  const url = `http://127.0.0.1:${await listen(cut)}/`;
  const ends = [(route) => route.fulfill({ status: 504, body: "<html>" }), (route) => route.continue({ url })];
  for (const [index, end] of ends.entries()) {
    await page.route("**/api/ask", end);
    await ask("Qu’est-ce que l’homme ?");
    await idle();
    assert.equal(await page.locator("article.answer").count(), index + 1);
    assert.ok((await page.innerText("article.answer:last-child .text")).length > 5);
  }
});

for (const [address, told] of [["http://nowhere.invalid", /ne répond pas/], ["https://ton-pod...", /site est mal réglé/]]) {
  test(`an error is told in French, and is no answer: ${address}`, { skip }, async () => {
    await visit({ SNB_BACKEND_URL: address });
    await ask("Que puis-je savoir ?");
    await until(async () => told.test(await page.innerText("#error[role=alert]")));
    assert.equal(await page.locator("article").count(), 0);
    assert.equal(await page.inputValue("textarea"), "Que puis-je savoir ?");
    await shot(page, "error");
  });
}

test("Enter asks nothing while an answer is written, and what was said stays in its place", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: await answering(SHORT, 50) });
  let asked = 0;
  await page.route("**/api/ask", (route) => (asked++, route.continue()));
  await ask("Que dois-je faire ?");
  await until(async () => (await answer()).length > 0);
  const first = await page.$("article.question");
  await page.fill("textarea", "Pourquoi ?");
  await page.press("textarea", "Enter");
  await idle();
  assert.deepEqual([asked, await page.inputValue("textarea"), (await said()).length], [1, "Pourquoi ?", 2]);
  await page.press("textarea", "Enter");
  await idle();
  assert.deepEqual([asked, (await said()).length], [2, 4]);
  assert.ok(await first.evaluate((article) => article.isConnected), "a screen reader would read it again");
});

test("a look that is lost does not lose the answer, and what is started for a pupil who leaves is stopped", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: await answering(SHORT) });
  await page.route("**/api/ask", (route) => route.fulfill({ status: 504, body: "<html>" }));
  const broken = [(route) => route.abort(), (route) => route.fulfill({ status: 502, body: "<html>" })];
  const calls = [];
  await page.route("**/api/poll", (route) => {
    calls.push(route.request().method());
    return (broken.pop() ?? ((one) => one.continue()))(route);
  });
  await ask("Que puis-je savoir ?");
  await idle();
  assert.ok((await answer()).length > 5);
  let start;
  await page.route("**/api/start", (route) => (start = () => route.continue()));
  await ask("Que puis-je espérer ?");
  await until(() => start);
  await page.click("text=Arrêter");
  await idle();
  assert.ok(!calls.includes("DELETE"));
  await start();
  await until(() => calls.includes("DELETE"));
  const stopped = [];
  let look;
  await page.route("**/api/poll", (route) => {
    if (route.request().method() === "DELETE") stopped.push(route.request().postDataJSON().handle);
    else look = () => route.fulfill({ json: { status: "starting", handle: "of the answer that this look has begun" } });
    return route.request().method() === "DELETE" && route.fulfill({ json: {} });
  });
  await page.unroute("**/api/start");
  await ask("Que puis-je croire ?");
  await until(() => look);
  await page.click("text=Arrêter");
  await until(() => stopped.length === 1);
  await look();
  await until(() => stopped[1] === "of the answer that this look has begun");
});

test("stopping an answer stops the decoding", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: await answering(ENDLESS) });
  const before_ = doors.canceled();
  await ask("Que dois-je faire ?");
  await until(async () => (await answer()).length > 0);
  await page.press("text=Arrêter", "Enter");
  await until(() => doors.canceled() > before_);
});

test("the answer grows before the eyes of who asked, with its stop button in sight", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: await answering(ENDLESS, 10) });
  process.env.SNB_TIMEOUT_MS = "55000";
  await ask("Raconte-moi longuement l’histoire de la philosophie.");
  await until(async () => (await answer()).length > 0);
  const early = await answer();
  assert.equal(await page.getAttribute("#conversation", "aria-busy"), "true");
  await until(async () => (await answer()).length > early.length);
  await page.setViewportSize({ width: 390, height: 420 });
  await until(async () => (await page.locator("article.answer").boundingBox()).height > 420);
  assert.ok((await page.locator("#stop").boundingBox()).y < 420 - 44);
  const end = () => page.evaluate(() => document.querySelector("article.answer").getBoundingClientRect().bottom);
  await page.evaluate(() => document.querySelector("article.answer").scrollIntoView({ block: "end" }));
  const [length, last] = [(await answer()).length, await end()];
  await until(async () => (await answer()).length > length + 80); // a line or two
  assert.ok((await end()) < last + 40, "the page follows the end");
  await page.click("text=Arrêter");
  await idle();
  assert.equal(await page.innerText("#error"), "");
  assert.equal(await page.innerText("#state"), "Réponse arrêtée.");
  assert.match(await page.innerText("article.answer"), /Réponse interrompue\.$/);
  assert.equal(await page.getAttribute("#conversation", "aria-busy"), "false");
  await shot(page, "stopped");
});

test("a question that is stopped before its answer begins is a draft again", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: "http://nowhere.invalid" });
  await page.route("**/api/ask", () => {}); // never answers
  await ask("Que puis-je savoir ?");
  assert.equal(await page.innerText("#state"), "Kant réfléchit…");
  await page.click("text=Arrêter");
  await idle();
  assert.deepEqual(await said(), []);
  assert.equal(await page.inputValue("textarea"), "Que puis-je savoir ?");
  assert.equal(await page.innerText("#error"), "");
});

test("each philosopher has his own conversation, begun with a question of his, and a reload keeps it", { skip }, async () => {
  const notice = "135M stand-in, not the philosopher";
  const asked = await scripted({ text: "Une " }, { text: "**cause**.\n\n- <img src=x>" }, { done: true, notice });
  await shot(page, "first");
  const first = await page.locator("#questions button").first().innerText();
  await page.click("#questions button >> nth=0");
  await idle();
  await ask("Et Kant ?");
  await idle();
  await page.keyboard.type("Pourquoi ?");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("Dis-le.");
  await page.keyboard.press("Enter");
  await idle();
  assert.deepEqual(asked.map(({ philosopher, history }) => [philosopher, history.length]), [["spinoza", 0], ["kant", 0], ["kant", 2]]);
  assert.deepEqual([asked[0].userMessage, asked[2].userMessage], [first, "Pourquoi ?\nDis-le."]);
  await page.fill("textarea", "un brouillon");
  await page.reload();
  await page.waitForSelector("article.answer");
  assert.equal(await page.inputValue("textarea"), "un brouillon");
  assert.equal((await said()).length, 4);
  await page.selectOption("select", "spinoza");
  const [question, reply] = await said();
  assert.match(question, /^Toi\n/);
  assert.match(reply, /^Spinoza\n[^]*Modèle d’essai\u00a0: /);
  assert.equal(await page.innerText("article.answer strong"), "cause");
  assert.equal(await page.innerText("article.answer li"), "<img src=x>");
  await page.selectOption("select", "bergson");
  assert.deepEqual(await said(), []);
  assert.ok(await page.isVisible("#start"));
});

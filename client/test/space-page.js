/** Visitors to the page of deploy/space: one browser and one set of servers for all tests of a file. */

import assert from "node:assert/strict";
import { after, afterEach, before } from "node:test";
import { launch, skip } from "./browser.js";
import { open, until } from "./doors.js";

export const DESK = { viewport: { width: 1100, height: 900 } };
export const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

export const idle = (page) => page.waitForSelector("#stop", { state: "hidden", timeout: 120_000 });
export const answers = (page) => page.locator("article.answer .text").allInnerTexts();
export const notes = (page) => page.locator("article.answer:last-child .note").allInnerTexts();
export const state = (page, text) => until(async () => text.test(await page.textContent("#state")));

export async function ask(page, question) {
  await page.fill("#message", question);
  await page.click("#send");
}

/** Registers a file's hooks; returns `visit`, `puppet`, `doors()`, and `elsewhere`, the URLs of requests to other hosts. */
export function visitors() {
  const opened = [];
  const elsewhere = [];
  let browser;
  let doors;
  before(async () => {
    if (!skip) [browser, doors] = await Promise.all([launch(), open()]);
  });
  after(async () => {
    await browser?.close();
    await doors?.close();
  });
  afterEach(async () => {
    for (const context of opened.splice(0)) await context.close();
    assert.deepEqual(elsewhere.splice(0), [], "the page reached for another host");
  });

  /** A visitor in a browser context of his own. `prepare(page)` is called before the page is opened. */
  async function visit(options = DESK, prepare = () => {}, hash = "") {
    const context = await browser.newContext({ locale: "fr-FR", ...options });
    opened.push(context);
    const page = await context.newPage();
    page.on("request", (request) => {
      if (!request.url().startsWith(`${doors.page}/`) && !/^(?:data|blob|about):/.test(request.url())) elsewhere.push(request.url());
    });
    await prepare(page);
    await page.goto(`${doors.page}/${hash}`);
    await page.waitForSelector("#people:enabled");
    return page;
  }

  /** A visitor whose server the test plays: it sends the events that are passed to `page.say()`. */
  async function puppet(options, prepare = () => {}, hash) {
    const page = await visit(options, async (page) => {
      await page.addInitScript(played);
      await prepare(page);
    }, hash);
    page.say = (...events) => page.evaluate((given) => given.forEach(server.say), events);
    page.cut = () => page.evaluate(() => server.cut());
    /** Asks a question and sends this whole answer; `told` are codes of notices. */
    page.exchange = async (question, answer, ...told) => {
      await ask(page, question);
      await page.reply(answer, ...told);
    };
    page.reply = async (answer, ...told) => {
      await page.say(...told.map((title) => ({ msg: "log", title, log: title })), text(answer), end(answer));
      await idle(page);
    };
    return page;
  }
  return { visit, puppet, elsewhere, doors: () => doors };
}

export const text = (answer) => ({ msg: "process_generating", success: true, output: { data: [answer] } });
export const end = (answer) => ({ msg: "process_completed", success: true, output: { data: [answer] } });
export const refusal = (code) => ({ msg: "process_completed", success: false, output: { error: `${code}: in English` } });

/** Runs in the page: replaces Gradio's queue with one that the test plays. */
function played() {
  const real = window.fetch;
  const server = (window.server = { jobs: [], cancels: 0, joins: Promise.resolve() });
  const ready = (give) => (server.stream ? give(server.stream) : setTimeout(ready, 5, give));
  server.say = (event) => ready((stream) => stream.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(event)}\n\n`)));
  server.cut = () => ready((stream) => stream.error(new TypeError("cut")));
  window.fetch = async (url, init) => {
    const path = new URL(url, location.href).pathname;
    if (path.endsWith("/queue/join")) {
      server.jobs.push(JSON.parse(init.body).data);
      server.stream = null;
      await server.joins;
      return Response.json({ event_id: "1" });
    }
    if (path.endsWith("/cancel")) return server.cancels++, Response.json({ success: true });
    if (!path.endsWith("/queue/data")) return real(url, init);
    return new Response(new ReadableStream({
      start(stream) {
        server.stream = stream;
        init.signal.addEventListener("abort", () => stream.error(init.signal.reason));
      },
    }));
  };
}

/** The example's page in headless Chromium, before the real servers. Screenshots go to build/client/. */

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { launch, screenshots, skip } from "./browser.js";
import { environment, open, until } from "./doors.js";
import { serve } from "./site.js";

const SHOTS = screenshots("client");
let browser;
let doors;
let page;
let site;

before(async () => {
  if (skip) return;
  [browser, doors] = await Promise.all([launch(), open("replicate", "slow")]);
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

const answer = () => page.textContent("article.answer");

test("a question is answered before the eyes of who asked", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: doors.cog });
  await ask("Que puis-je savoir ?");
  const seen = new Set();
  await until(async () => {
    seen.add(await answer());
    return page.isEnabled("text=Demander");
  });
  assert.ok(seen.size > 3, "the text was not seen growing");
  assert.ok((await answer()).length > 10);
  await page.screenshot({ path: `${SHOTS}answer.png` });
  await ask("Et que dois-je faire ?");
  await until(() => page.isEnabled("text=Demander"));
  assert.equal(await page.locator("article.answer").count(), 2);
});

test("nothing is wider than a phone", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: doors.cog });
  await ask("x".repeat(300));
  await until(() => page.isEnabled("text=Demander"));
  const { wide, window_ } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth,
    window_: window.innerWidth,
  }));
  assert.ok(wide <= window_);
});

test("a cold model is said to wake up, and answers", { skip }, async () => {
  const variables = { SNB_BACKEND_URL: "replicate:owner/spinoza", REPLICATE_API_TOKEN: "r8_test" };
  await visit({ ...variables, REPLICATE_API_BASE_URL: doors.replicate });
  process.env.SNB_TIMEOUT_MS = "3000";
  const cold = { method: "POST", cold: 6, path: "/v1/predictions", times: 2 };
  await fetch(`${doors.replicate}/_test/faults`, { method: "POST", body: JSON.stringify(cold) });
  await ask("Que puis-je espérer ?");
  await until(async () => /se réveille/.test(await page.textContent("#state")));
  await page.screenshot({ path: `${SHOTS}cold.png` });
  await until(async () => (await answer()).length > 5);
});

test("a function that the platform cut is gone round", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: doors.cog });
  await page.route("**/api/ask", (route) => route.fulfill({ status: 504, body: "<html>" }));
  await ask("Qu’est-ce que l’homme ?");
  await until(() => page.isEnabled("text=Demander"));
  assert.ok((await answer()).length > 5);
});

test("an error is told in French, and is no answer", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: "http://nowhere.invalid" });
  await ask("Que puis-je savoir ?");
  await page.waitForSelector("article.error");
  assert.match(await page.textContent("article.error"), /ne répond pas/);
  assert.equal(await page.locator("article.answer").count(), 0);
  await page.screenshot({ path: `${SHOTS}error.png` });
});

test("stopping the answer stops the decoding", { skip }, async () => {
  await visit({ SNB_BACKEND_URL: doors.cog });
  const before_ = doors.canceled();
  await ask("Raconte-moi longuement l’histoire de la philosophie.");
  await until(async () => (await answer()).length > 0);
  await page.click("text=Arrêter");
  await until(() => doors.canceled() > before_);
  assert.match(await page.textContent("article.error"), /arrêtée/);
});

/** The page of deploy/space in headless Chromium, with the real servers. SCREENSHOTS=1 saves pictures in build/screenshots/. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { camera, skip } from "./browser.js";
import { ENDLESS, until } from "./doors.js";
import { answers, ask, idle, notes, refusal, visitors } from "./space-page.js";

const LONG = "Raconte-moi longuement l’histoire de la philosophie.";
const SHORT = 24; // tokens of an answer that a test waits for
const { visit: arrive, doors, elsewhere } = visitors();
const shot = camera("screenshots");

const visit = (options) => arrive(options, (page) => lengthen(page, SHORT));

/** Sets the length of the answers to the next questions, `times` of them if given; the page itself asks for none. */
async function lengthen(page, tokens, times) {
  const { endpoint } = await (await fetch(`${doors().page}/page/site.json`)).json();
  const inputs = endpoint.inputs.map(([name]) => name);
  const length = async (route) => {
    const job = route.request().postDataJSON();
    for (const name of ["min_tokens", "max_tokens"]) job.data[inputs.indexOf(name)] = tokens;
    await route.continue({ postData: JSON.stringify(job) });
  };
  await page.route("**/gradio_api/queue/join", length, { times });
}

/** Resolves when some of a long answer has come, with more to come. */
async function talking(page) {
  await lengthen(page, ENDLESS, 1);
  await ask(page, LONG);
  await until(async () => /\p{L}/u.test((await answers(page)).at(-1) ?? ""));
}

for (const [key, name] of [["spinoza", "Spinoza"], ["bergson", "Bergson"], ["kant", "Kant"]]) {
  test(`a conversation with ${name}`, { skip }, async () => {
    const page = await visit();
    await page.click(`label:has([value=${key}])`);
    assert.equal(await page.textContent("#who"), name);
    await shot(page, `${key}-start`);
    const question = await page.locator("#questions button").first().innerText();
    await page.locator("#questions button").first().click();
    await page.waitForSelector("article.answer");
    await idle(page);
    assert.equal(await page.locator("article.question p").first().innerText(), question);
    await ask(page, "Donne-moi un exemple.");
    await idle(page);
    assert.equal((await answers(page)).length, 2);
    assert.ok((await answers(page)).every((text) => text.length > 5));
    assert.equal(await page.textContent("#state"), `${name} a répondu.`);
    for (const note of await page.locator("article.answer .notes").allInnerTexts()) assert.match(note, /Modèle d’essai/);
    await shot(page, `${key}-conversation`, { fullPage: true });
  });
}

test("the text grows before the eyes, until the stop button stops the decoding", { skip }, async () => {
  const page = await visit();
  const before_ = doors().canceled();
  await talking(page);
  const [early] = await answers(page);
  await until(async () => (await answers(page))[0].length > early.length);
  await page.press("#stop", "Enter"); // until the answer fills the window it moves the button, which a click might miss
  await idle(page);
  await until(() => doors().canceled() > before_);
  assert.match((await notes(page))[0], /Réponse interrompue/);
  assert.match(await page.textContent("#state"), /Réponse arrêtée/);
  await shot(page, "stopped");
});

test("closing the tab stops the decoding", { skip }, async () => {
  const page = await visit();
  const before_ = doors().canceled();
  await talking(page);
  await page.close();
  await until(() => doors().canceled() > before_);
});

test("a reload keeps the conversation of this tab, and another tab has no part in it", { skip }, async () => {
  const page = await visit();
  await ask(page, "Que puis-je savoir ?");
  await idle(page);
  const said = await answers(page);
  await page.reload();
  await page.waitForSelector("article.answer");
  assert.deepEqual(await answers(page), said);
  const other = await page.context().newPage();
  await other.goto(doors().page);
  await other.waitForSelector("#questions button");
  assert.equal(await other.locator("article").count(), 0);
  await talking(page);
  await page.reload();
  await page.waitForSelector("article.answer");
  assert.match((await notes(page))[0], /Réponse interrompue/);
});

test("two visitors at once see each his own", { skip }, async () => {
  const [first, second] = await Promise.all([visit(), visit()]);
  await Promise.all([ask(first, "Première question ?"), ask(second, "Seconde question ?")]);
  await Promise.all([idle(first), idle(second)]);
  for (const [page, mine, other] of [[first, "Première", "Seconde"], [second, "Seconde", "Première"]]) {
    const text = await page.textContent("#conversation");
    assert.ok(text.includes(mine));
    assert.ok(!text.includes(other));
    assert.equal((await answers(page)).length, 1);
  }
});

test("an answer can be copied", { skip }, async () => {
  const page = await visit();
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await ask(page, "Que puis-je savoir ?");
  await idle(page);
  await page.click("text=Copier");
  await until(async () => (await page.textContent("#state")) === "Réponse copiée.");
  assert.equal((await page.evaluate(() => navigator.clipboard.readText())).trim(), (await answers(page))[0].trim());
});

test("the keyboard is enough", { skip }, async () => {
  const page = await visit();
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.value || document.activeElement.textContent);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Aller à la question");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "spinoza");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.textContent("#who"), "Kant");
  const ring = await page.evaluate(() => getComputedStyle(document.querySelector("label:has(:checked)")).outlineStyle);
  assert.equal(ring, "solid");
  await page.keyboard.press("Tab");
  await shot(page, "keyboard");
  await page.keyboard.press("Enter");
  await idle(page);
  assert.equal((await answers(page)).length, 1);
  assert.equal(await focused(), "message");
  await page.keyboard.type("Pourquoi ?");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("Dis-le simplement.");
  await page.keyboard.press("Enter");
  await until(async () => (await answers(page)).length === 2);
  await page.keyboard.press("Escape");
  await idle(page);
  assert.equal(await page.locator("article.question p").nth(1).innerText(), "Pourquoi\u202f?\nDis-le simplement.");
});

test("a screen reader is told what is what", { skip }, async () => {
  const page = await visit();
  assert.equal(await page.getAttribute("html", "lang"), "fr");
  for (const [role, name] of [["radio", /Spinoza/], ["radio", /Bergson/], ["radio", /Kant/], ["textbox", "Ta question"], ["button", "Demander"], ["log", "Conversation"], ["heading", "Trois philosophes"], ["link", "Aller à la question"]]) {
    assert.equal(await page.getByRole(role, { name }).count(), 1, `${role} ${name}`);
  }
  assert.equal(await page.getAttribute("#state", "role"), "status");
  await talking(page);
  assert.equal(await page.getAttribute("#conversation", "aria-busy"), "true");
  await page.press("#stop", "Enter");
  await idle(page);
  assert.equal(await page.getAttribute("#conversation", "aria-busy"), "false");
});

test("neither a pupil nor a model makes an element or a request", { skip }, async () => {
  const page = await visit();
  const forged = "<img src=http://forged.test/a.png onerror=alert(1)> ![x](http://forged.test/b.png) <script>alert(1)</script> [lien](http://forged.test/) **gras** et *italique* <img src=http://forged.test/d.png>";
  await page.route("**/gradio_api/queue/data*", (route) => {
    const messages = [{ msg: "process_starts" }, { msg: "process_generating", success: true, output: { data: [forged] } }, { msg: "process_completed", success: true, output: { data: [forged] } }];
    route.fulfill({ contentType: "text/event-stream", body: messages.map((message) => `data: ${JSON.stringify(message)}\n\n`).join("") });
  });
  page.on("dialog", () => elsewhere.push("a dialog"));
  await ask(page, forged);
  await idle(page);
  assert.equal(await page.locator("article :is(img, script, a, iframe, video, audio, object, embed, link, style)").count(), 0);
  assert.equal(await page.locator("article.answer strong").innerText(), "gras");
  assert.equal(await page.locator("article.answer em").innerText(), "italique");
  assert.ok((await answers(page))[0].includes("<img src=http://forged.test/a.png"));
  await page.reload();
  await page.waitForSelector("article.answer");
  assert.equal(await page.locator("article :is(img, script, a)").count(), 0);
  // What the guard's headers add: even an element would load nothing.
  const loaded = await page.evaluate(async () => {
    const image = new Image();
    return new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", () => resolve("refused"));
      image.onload = image.onerror = () => setTimeout(resolve, 1000, "asked for");
      image.src = "http://forged.test/c.png";
    });
  });
  assert.equal(loaded, "refused");
  assert.deepEqual(elsewhere.splice(0), ["http://forged.test/c.png"]);
});

/** Asks a question whose event stream `answer(route)` fulfils or aborts. */
async function failing(page, answer) {
  await page.route("**/gradio_api/queue/data*", answer);
  await ask(page, "Que puis-je savoir ?");
  await idle(page);
}

const completed = (code) => `data: ${JSON.stringify(refusal(code))}\n\n`;

for (const [code, told] of [["BUSY", /Attends une minute/], ["COLD_START", /ne s’est pas réveillé/], ["UNAUTHORIZED", /Préviens ton professeur/], ["BACKEND_FAILED", /ne répond pas/]]) {
  test(`${code} is told in French, and is nobody's words`, { skip }, async () => {
    const page = await visit();
    await failing(page, (route) => route.fulfill({ contentType: "text/event-stream", body: completed(code) }));
    assert.match(await page.locator("#error[role=alert]").innerText(), told);
    assert.deepEqual([await answers(page), await notes(page)], [[""], ["Pas de réponse."]]);
    await shot(page, `error-${code.toLowerCase()}`);
  });
}

test("an error is no part of the history, and the question can be asked again", { skip }, async () => {
  const page = await visit();
  await failing(page, (route) => route.fulfill({ contentType: "text/event-stream", body: completed("BUSY") }));
  await page.unroute("**/gradio_api/queue/data*");
  let sent;
  page.on("request", (request) => request.url().endsWith("/queue/join") && (sent = request.postDataJSON().data));
  await page.click("text=Reposer la question");
  await idle(page);
  assert.ok(await page.isHidden("#error"));
  assert.deepEqual(sent[3], []);
  await ask(page, "Et ensuite ?");
  await idle(page);
  assert.equal(sent[3].length, 2);
  assert.doesNotMatch(JSON.stringify(sent), /Pas de réponse|in English/);
});

test("a connection that breaks is told, and a question that is refused can be mended", { skip }, async () => {
  const page = await visit();
  await failing(page, (route) => route.abort());
  assert.match(await page.innerText("#error"), /Vérifie ton réseau/);
  await page.unroute("**/gradio_api/queue/data*");
  await page.fill("#message", "x".repeat(4001));
  await page.click("#send");
  assert.match(await page.innerText("#error"), /trop longue\s: 4\u202f000 caractères au plus/);
  assert.equal(await page.getAttribute("#message", "aria-invalid"), "true");
  assert.equal(await page.locator("article.question").count(), 1);
  await failing(page, (route) => route.fulfill({ contentType: "text/event-stream", body: completed("BAD_INPUT") }));
  assert.match(await page.innerText("#error"), /Raccourcis-la/);
  assert.equal(await page.inputValue("#message"), "Que puis-je savoir ?");
});

test("Gradio's own page documents every endpoint, and loads from here alone", { skip }, async () => {
  const page = await visit();
  await page.goto(await page.locator("link[rel=service-doc]").evaluate((link) => link.href));
  await page.waitForSelector("text=API documentation", { timeout: 120_000 });
  const text = await page.innerText("body");
  for (const name of ["/answer", "/chat_function", "/chat_kant", "5 API endpoints"]) assert.ok(text.includes(name), name);
  await shot(page, "api");
});

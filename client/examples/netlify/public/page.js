/**
 * A conversation with each philosopher, which this tab keeps. Asks through the streaming function; if nothing answers in
 * time (a cold model, a short limit), asks again through start and poll.
 */

import { render } from "./markdown.js";

const NAMES = { spinoza: "Spinoza", bergson: "Bergson", kant: "Kant" };
const LATER = ["COLD_START", "TIMEOUT", "BUSY", "ALL_BACKENDS_FAILED", "CUT"];
const ERRORS = {
  BAD_INPUT: "Cette question ne peut pas être posée telle quelle : raccourcis-la ou reformule-la.",
  UNAUTHORIZED: "Le philosophe refuse la clé du site. Préviens ton professeur.",
  BAD_SETTING: "Le site est mal réglé. Préviens ton professeur.",
  BUSY: "Trop d’élèves parlent en même temps. Attends une minute, puis repose ta question.",
};
const UNKNOWN = "Le philosophe ne répond pas. Repose ta question dans une minute ; si cela dure, préviens ton professeur.";
const WAITS = {
  thinking: (name) => `${name} réfléchit…`,
  starting: () => "Le modèle se réveille : compte deux à trois minutes.",
  queued: (name) => `${name} termine une autre conversation…`,
  processing: (name) => `${name} réfléchit encore…`,
};
const WAITS_OF = { COLD_START: "starting", BUSY: "queued" };
const NOTICES = {
  "135M stand-in, not the philosopher": "Modèle d’essai : il montre que le site fonctionne, non comment le philosophe parle.",
};
const KEY = "conversations";
const MOST_KEPT = 60_000; // characters of a keepalive request, which outlives the page: browsers allow 64 KiB
const LOOKS = 5; // tries of one poll: a broken connection does not end an answer

const find = (selector) => document.querySelector(selector);
const [form, conversation, state, clock, stop] = ["#question", "#conversation", "#state", "#clock", "#stop"].map(find);
const kept = remembered();
let questions = {};
let leaving; // aborts the answer in progress

form.philosopher.value = kept.philosopher;
form.message.value = kept.draft;
form.message.disabled = false; // until this script listened, a question would have been lost
show();
reveal();
fetch("questions.json").then((response) => response.json()).then(offer, () => {}); // without them a pupil writes their own
form.philosopher.addEventListener("change", () => {
  kept.philosopher = form.philosopher.value;
  find("#error").textContent = state.textContent = "";
  show();
  reveal();
});
form.message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (leaving) return; // Enter submits even while the button is disabled
  const message = form.message.value.trim();
  form.message.value = "";
  if (message) ask(message);
});
stop.addEventListener("click", () => leaving?.abort());
addEventListener("pagehide", () => {
  save();
  leaving?.abort();
});

/** Asks, and shows what comes. A question that got no answer goes back into the box. */
async function ask(message) {
  const { philosopher } = kept;
  const history = thread().filter(({ answer }) => answer).flatMap(({ question, answer }) => [{ role: "user", content: question }, { role: "assistant", content: answer }]);
  const exchange = { question: message, answer: "", cut: true };
  const question = { philosopher, userMessage: message, history: history.slice(-80) };
  thread().push(exchange);
  leaving = new AbortController();
  const { signal } = leaving;
  find("#error").textContent = "";
  show();
  if (matchMedia("(pointer: fine)").matches) form.message.focus({ preventScroll: true }); // a phone's keyboard would hide the answer
  reveal();
  wait("thinking");
  const since = Date.now();
  const ticking = setInterval(() => (clock.textContent = state.textContent && `${Math.round((Date.now() - since) / 1000)}\u00a0s`), 1000);
  try {
    await streamed(question, exchange, signal).catch((error) => {
      if (exchange.answer || signal.aborted || !LATER.includes(error.message)) throw error;
      return later(question, exchange, signal, WAITS_OF[error.message] ?? "processing");
    });
    delete exchange.cut;
    state.textContent = "";
  } catch (error) {
    state.textContent = signal.aborted ? "Réponse arrêtée." : "";
    if (!signal.aborted) find("#error").textContent = ERRORS[error.message] ?? UNKNOWN;
    if (!exchange.answer && !form.message.value) {
      thread().pop();
      form.message.value = message;
    }
  }
  clearInterval(ticking);
  clock.textContent = "";
  leaving = undefined;
  save();
  followed(show);
}

async function streamed(question, exchange, signal) {
  const response = await post("/api/ask", question, signal);
  if (!response.ok || !response.body) throw new Error("CUT");
  let rest = "";
  for await (const text of chunks(response.body.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const part = JSON.parse(line);
      if (part.error) throw new Error(part.error);
      exchange.notice = part.notice;
      if (part.done) return;
      write(exchange, part.restart ? "" : exchange.answer + part.text);
    }
  }
  throw new Error("CUT"); // the platform's time limit
}

async function later(question, exchange, signal, status) {
  wait(status);
  let reply = post("/api/start", question).then((response) => response.json());
  let look;
  try {
    look = await unlessLeft(reply, signal);
    if (look.error) throw new Error(look.error);
    do {
      reply = looked(look.handle, signal);
      look = await unlessLeft(reply, signal);
      if (look.status === "failed" || look.status === "canceled") throw new Error(look.error);
      if (look.text) write(exchange, look.text);
      else wait(look.status);
      if (look.status === "starting" || look.status === "queued") await pause(1000, signal);
    } while (look.status !== "succeeded");
    exchange.notice = look.metrics?.notice;
  } catch (error) {
    // Cancels at once, for the page may be closing, and then what a reply still under way has started, perhaps elsewhere.
    const canceled = ({ handle } = {}) => handle && post("/api/poll", { handle }, undefined, "DELETE");
    Promise.allSettled([canceled(look), reply.then(canceled)]);
    throw error;
  }
}

/** Polls an answer once, with retries. */
async function looked(handle, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return await (await post("/api/poll", { handle })).json();
    } catch (error) {
      if (signal.aborted || tries === LOOKS) throw error;
      await pause(tries * 1000, signal);
    }
  }
}

/** Reads a stream's chunks; not every browser can iterate over a stream itself. */
async function* chunks(stream) {
  const reader = stream.getReader();
  const read = () => reader.read().catch((error) => Promise.reject(error.name === "AbortError" ? error : new Error("CUT")));
  for (let part = await read(); !part.done; part = await read()) yield part.value;
}

const unlessLeft = (promise, signal) =>
  Promise.race([promise, new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }))]);

const pause = (ms, signal) => unlessLeft(new Promise((resolve) => setTimeout(resolve, ms)), signal);

function post(path, value, signal, method = "POST") {
  const body = JSON.stringify(value);
  const keepalive = method === "DELETE" && body.length < MOST_KEPT;
  return fetch(path, { method, headers: { "content-type": "application/json" }, body, signal, keepalive });
}

function wait(status) {
  state.textContent = WAITS[status]?.(NAMES[kept.philosopher]) ?? "";
}

/** Shows what has come. */
function write(exchange, text) {
  exchange.answer = text;
  state.textContent = clock.textContent = "";
  followed(() => render(conversation.querySelector("article:last-child .text"), text));
}

/** Makes a change, and keeps the page at the end of the conversation unless its reader has scrolled away. */
function followed(change) {
  const follows = conversation.getBoundingClientRect().bottom < form.getBoundingClientRect().top + 60;
  change();
  if (follows) reveal();
}

function reveal() {
  conversation.querySelector("article:last-child")?.scrollIntoView({ block: "end" });
}

/** Shows the conversation with the chosen philosopher or, before there is one, the first questions. */
function show() {
  const exchanges = thread();
  const busy = Boolean(leaving);
  find("#start").hidden = exchanges.length > 0;
  offer();
  const articles = exchanges.flatMap(({ question, answer, notice, cut }, index) => {
    const written = busy && index === exchanges.length - 1;
    const text = element("div", "text");
    render(text, answer);
    const reply = spoken("answer", NAMES[kept.philosopher], text);
    if (cut && !written) reply.append(element("p", "note", "Réponse interrompue."));
    if (notice) reply.append(element("p", "note", NOTICES[notice] ?? notice));
    return [spoken("question", "Toi", element("p", "text", question)), reply];
  });
  // Replaces only what differs: a screen reader reads again whatever is re-inserted into a log.
  const same = articles.findIndex((article, index) => !conversation.children[index]?.isEqualNode(article));
  for (const old of [...conversation.children].slice(same < 0 ? articles.length : same)) old.remove();
  if (same >= 0) conversation.append(...articles.slice(same));
  conversation.setAttribute("aria-busy", String(busy));
  const submit = form.querySelector("[type=submit]");
  submit.disabled = form.philosopher.disabled = busy;
  if (!busy && document.activeElement === stop) submit.focus();
  stop.hidden = !busy;
}

/** Offers those of the given first questions that are for the chosen philosopher. */
function offer(given = questions) {
  questions = given;
  find("#questions").replaceChildren(...(questions[kept.philosopher] ?? []).map((text) => {
    const item = document.createElement("li");
    item.append(Object.assign(element("button", "first", text), { type: "button", onclick: () => ask(text) }));
    return item;
  }));
}

function spoken(kind, who, text) {
  const article = element("article", kind);
  article.append(element("h2", "who", who), text);
  return article;
}

function element(name, className, textContent = "") {
  return Object.assign(document.createElement(name), { className, textContent });
}

function thread() {
  return (kept.threads[kept.philosopher] ??= []);
}

/** Returns what this tab kept before a reload; a question whose answer had not begun becomes a draft again. */
function remembered() {
  const found = { philosopher: "spinoza", threads: {}, draft: "" };
  try {
    Object.assign(found, JSON.parse(sessionStorage.getItem(KEY)));
  } catch {
    // storage is off in this browser: a reload then forgets
  }
  for (const [name, exchanges] of Object.entries(found.threads)) {
    const unanswered = exchanges.find(({ answer }) => !answer);
    found.draft ||= unanswered?.question ?? "";
    found.threads[name] = exchanges.filter(({ answer }) => answer);
  }
  return found;
}

function save() {
  kept.draft = form.message.value;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // as above
  }
}

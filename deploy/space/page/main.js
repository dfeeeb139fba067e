/** The page: choosing, asking, stopping, asking again. What is shown comes from `memory`; notices never go there. */

import { ask, Refused } from "./gradio.js";
import { history, Memory } from "./memory.js";
import { portrait, Talk } from "./talk.js";

const SLOW = 8000; // ms without text after which the page says that it takes long
const find = (id) => document.getElementById(id);
const site = await (await fetch("page/site.json")).json();
const memory = new Memory();
const talk = new Talk(find("conversation"), { again, copy });
const message = find("message");
const context = find("context");
let asking = null; // {philosopher, stop} of the answer under way

const chosen = () => memory.kept.philosopher;
const name = (philosopher = chosen()) => site.people[philosopher].name;
const sentence = (state, more) => site.states[state].replace(/\{(\w+)\}/g, (_, word) => ({ name: name(), ...more })[word]);

/** The line that screen readers announce; `unseen` where the page itself shows it already. */
function say(text, unseen = false) {
  find("state").textContent = text;
  find("state").classList.toggle("quietly", unseen);
}

function complain(code) {
  const error = find("error");
  error.hidden = !code;
  error.textContent = code ? (site.errors[code] ?? site.errors.OTHER) : "";
}

function people() {
  for (const [key, { name, dates }] of Object.entries(site.people)) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "philosopher", value: key });
    radio.checked = key === chosen();
    radio.addEventListener("change", () => choose(key));
    const text = Object.assign(document.createElement("span"), { className: "name", textContent: name });
    const years = Object.assign(document.createElement("span"), { className: "dates", textContent: dates.replace("-", "–") });
    label.append(radio, portrait(key), text, years);
    find("people").append(label);
  }
}

function choose(philosopher) {
  memory.kept.philosopher = philosopher;
  memory.save();
  say("");
  complain();
  show();
}

/** Everything that depends on who is chosen and on what has been said. */
function show() {
  const { name, line, questions } = site.people[chosen()];
  const thread = memory.thread();
  document.body.dataset.philosopher = chosen();
  find("who").textContent = name;
  find("line").textContent = line;
  find("start").hidden = thread.length > 0;
  find("clear").hidden = !thread.length;
  find("questions").replaceChildren(...questions.map(first));
  talk.show(thread, chosen(), name, asking?.philosopher === chosen());
  controls();
}

function first(question) {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: question });
  button.addEventListener("click", () => send(question));
  item.append(button);
  return item;
}

function controls() {
  const room = site.bounds.message - message.value.length;
  find("send").disabled = Boolean(asking);
  find("stop").hidden = !asking;
  find("clear").disabled = find("people").disabled = Boolean(asking);
  for (const button of find("questions").querySelectorAll("button")) button.disabled = Boolean(asking);
  find("room").hidden = room > 500;
  find("room").textContent = room < 0 ? sentence("too_long", { limit: site.bounds.message }) : `${room} caractères encore`;
  find("joined").hidden = !context.value.trim();
  find("unjoined").hidden = !find("joined").hidden;
}

/** Asks `question` after the exchanges that there are. */
async function send(question) {
  if (asking || !question.trim()) return;
  if (question.length > site.bounds.message) return message.focus();
  const thread = memory.thread();
  const earlier = history(thread);
  const exchange = { question, answer: "", state: "asked" };
  thread.push(exchange);
  await answer(exchange, earlier);
}

/** Asks the last question of the conversation anew; its answer makes room. */
async function again() {
  const thread = memory.thread();
  const exchange = thread.at(-1);
  if (asking || !exchange) return;
  Object.assign(exchange, { answer: "", state: "asked" });
  await answer(exchange, history(thread.slice(0, -1)));
}

async function answer(exchange, earlier) {
  const stop = new AbortController();
  asking = { philosopher: chosen(), stop };
  complain();
  say(sentence("thinking"));
  message.value = "";
  show();
  talk.reveal();
  const late = setTimeout(() => !exchange.answer && find("state").dataset.by !== "server" && say(sentence("slow")), SLOW);
  const inputs = { user_message: exchange.question, philosopher: chosen(), rag_context: context.value, history: earlier };
  try {
    await ask(site.endpoint, inputs, stop.signal, listeners(exchange));
    exchange.state = "done";
    say(sentence("done"), true);
  } catch (error) {
    failed(exchange, stop.signal.aborted ? null : error);
  }
  clearTimeout(late);
  delete find("state").dataset.by;
  asking = null;
  memory.save();
  show();
  if (!matchMedia("(pointer: coarse)").matches) message.focus({ preventScroll: true });
}

function listeners(exchange) {
  const told = (text) => {
    find("state").dataset.by = "server";
    say(text);
  };
  return {
    queued: (rank) => rank > 0 && told(sentence("queued", { rank: rank === 1 ? "une question" : `${rank} questions` })),
    started: () => say(sentence("thinking")),
    told(code, sentence) {
      if (code !== "STANDIN") return told(sentence);
      find("standin").hidden = false;
      find("standin").textContent = sentence;
    },
    text(text) {
      if (!exchange.answer) say(sentence("writing"));
      exchange.answer = text;
      talk.write(text);
    },
  };
}

/** A notice, and never the philosopher's words; what he had said by then stays. */
function failed(exchange, error) {
  exchange.state = exchange.answer ? "stopped" : "failed";
  say(error ? "" : sentence("stopped"));
  if (error) complain(error instanceof Refused ? error.code : "OTHER");
  if (error?.code === "BAD_INPUT" && !exchange.answer) {
    memory.thread().pop();
    message.value = exchange.question;
  }
}

async function copy(text) {
  const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  say(sentence(copied ? "copied" : "uncopied"));
}

people();
context.value = memory.kept.context;
find("people").disabled = message.disabled = false;
show();

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send(message.value);
});
message.addEventListener("keydown", (event) => {
  // On a phone Enter is the only way to begin a line.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches) return;
  event.preventDefault();
  send(message.value);
});
message.addEventListener("input", controls);
context.addEventListener("input", () => {
  memory.kept.context = context.value;
  controls();
});
find("stop").addEventListener("click", () => asking?.stop.abort());
find("clear").addEventListener("click", () => {
  memory.clear();
  complain();
  show();
  say(sentence("cleared"));
  message.focus();
});
addEventListener("keydown", (event) => event.key === "Escape" && asking?.stop.abort());
addEventListener("pagehide", () => memory.save());

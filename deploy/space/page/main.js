/** The page: choosing, asking, stopping, asking again. It shows what is in `memory`. */

import { Course } from "./course.js";
import { Follow } from "./follow.js";
import { history, Memory, reopen } from "./memory.js";
import { passagesOf } from "./passages.js";
import { people } from "./people.js";
import { button, element, find, LESSON, sentence, site } from "./site.js";
import { complain, say } from "./status.js";
import { Talk } from "./talk.js";
import { typeset } from "./typography.js";

const memory = new Memory();
const { kept } = memory;
const talk = new Talk(find("conversation"), { again, more: () => send(sentence("more")), copy });
const follow = new Follow(document.querySelector("main"), find("down"), () => memory.thread.length > 0);
const message = find("message");
const context = find("context");
const touch = matchMedia("(pointer: coarse)");
const course = new Course(memory, talk, giveBack);

const name = () => site.people[kept.philosopher].name;

function choose(philosopher) {
  kept.philosopher = philosopher;
  memory.save();
  say("");
  complain("");
  show();
}

/** Shows everything that depends on the chosen philosopher and on the conversation. */
function show() {
  const { line, questions } = site.people[kept.philosopher];
  const lesson = kept.lesson?.philosopher === kept.philosopher && kept.lesson.question ? kept.lesson : null;
  document.body.dataset.philosopher = kept.philosopher;
  document.querySelector(`#people [value=${kept.philosopher}]`).checked = true;
  find("who").textContent = name();
  find("line").textContent = line;
  find("first").textContent = sentence(lesson ? "first_of_lesson" : "first");
  find("questions").replaceChildren(...(lesson ? [lesson.question] : questions).map(first));
  message.placeholder = sentence("placeholder", { name: name() });
  context.value = memory.passages;
  talk.show(memory.thread, kept.philosopher);
  controls();
  if (memory.thread.length) follow.reveal();
  else follow.leave();
}

function first(question) {
  const item = element("li");
  item.append(button(typeset(question), () => send(question), ""));
  return item;
}

/** Shows what can be done now; moves the focus if the element that had it is hidden, disabled or gone. */
function controls(focused = document.activeElement) {
  const said = memory.thread.length > 0;
  const room = site.bounds.message - message.value.length;
  const count = passagesOf(context.value).length;
  find("start").hidden = said;
  for (const each of ["clear", "save", "print"]) find(each).hidden = !said;
  find("restore").hidden = said || !memory.cleared;
  find("date").textContent = new Date(memory.thread.at(-1)?.at ?? Date.now()).toLocaleDateString("fr-FR", { dateStyle: "full" });
  find("send").hidden = course.busy;
  find("send").disabled = false;
  find("stop").hidden = !course.busy;
  find("clear").disabled = find("people").disabled = course.busy;
  find("room").hidden = room > 500 || room < 0;
  find("room").textContent = find("room").hidden ? "" : sentence("room", { count: room }); // even hidden, it would describe the field
  find("joined").textContent = sentence(count ? "joined" : "join", { count, name: name() });
  if (!focused?.isConnected || focused.disabled || !focused.checkVisibility()) refocus();
}

function refocus() {
  const target = course.busy ? find("stop") : touch.matches ? find("send") : message;
  target.focus({ preventScroll: true });
}

/** Whether a question and its passages are within bounds; if not, says which is too long, and by how much. */
function fits(question) {
  const bounds = [["too_long", message, question, site.bounds.message], ["passages_too_long", context, context.value, site.bounds.passages]];
  for (const [key, field, { length }, limit] of bounds) {
    if (length <= limit) continue;
    complain(sentence(key, { limit, count: length - limit }), field);
    field.closest("details")?.setAttribute("open", "");
    field.focus();
    return false;
  }
  return true;
}

/** Asks `question` as the next of the conversation; returns whether it was asked. */
function send(question) {
  if (course.busy || !question.trim() || !fits(question)) return false;
  const earlier = history(memory.thread);
  const exchange = { question, answer: "", state: "asked", notes: [], passages: context.value.trim(), at: Date.now() };
  memory.thread.push(exchange);
  memory.forget();
  answer(exchange, earlier);
  return true;
}

/** Asks the conversation's last question again; its answer stays until a new one begins. */
function again() {
  const exchange = memory.thread.at(-1);
  if (course.busy || !exchange || !fits(exchange.question)) return;
  reopen(exchange, context.value.trim());
  answer(exchange, history(memory.thread.slice(0, -1)));
}

async function answer(exchange, earlier) {
  const focused = document.activeElement;
  const answered = course.begin(exchange, earlier);
  controls(focused);
  follow.reveal();
  await answered;
  controls();
}

/** Puts a refused question back into the box to be corrected, unless another is there; returns whether it did. */
function giveBack(question) {
  if (message.value) return false;
  write(question);
  return true;
}

function write(text) {
  message.value = kept.draft = text;
  memory.save();
}

function submit() {
  const question = message.value;
  if (!send(question)) return;
  write("");
  controls();
}

async function copy(text) {
  const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  say(sentence(copied ? "copied" : "uncopied"));
}

/** Takes over the lesson in a teacher's link, once. */
async function learn() {
  if (!location.hash.startsWith(LESSON) || kept.link === location.hash) return;
  const lesson = await (await import("./link.js")).lessonOf(location.hash);
  if (!lesson) return;
  Object.assign(kept, { link: location.hash, lesson, philosopher: lesson.philosopher });
  memory.passages = lesson.passages;
  memory.save();
}

function enlarge() {
  document.documentElement.classList.toggle("large", kept.large);
  find("large").ariaPressed = String(kept.large);
}

people(choose);
await learn();
message.value = kept.draft;
find("people").disabled = message.disabled = false;
enlarge();
show();

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
message.addEventListener("keydown", (event) => {
  // On a phone Enter is the only way to begin a new line.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch.matches) return;
  event.preventDefault();
  submit();
});
message.addEventListener("input", () => {
  complain("");
  write(message.value);
  controls();
});
context.addEventListener("input", () => {
  complain("");
  memory.passages = context.value;
  memory.save();
  controls();
});
// Ignores the second click of a double click on « Demander », whose place this button has just taken.
find("stop").addEventListener("click", (event) => event.detail < 2 && course.stop());
find("retry").addEventListener("click", async () => {
  course.stop();
  await course.over;
  again();
});
find("clear").addEventListener("click", () => {
  memory.clear();
  complain("");
  show();
  say(sentence("cleared", { name: name() }));
});
find("restore").addEventListener("click", () => {
  memory.restore();
  show();
  say(sentence("restored"));
});
find("save").addEventListener("click", async () => (await import("./sheet.js")).save(memory));
find("print").addEventListener("click", () => print());
addEventListener("beforeprint", () => find("conversation").querySelectorAll("details").forEach((sources) => (sources.open = true)));
find("large").addEventListener("click", () => {
  kept.large = !kept.large;
  memory.save();
  enlarge();
});
find("prepare").addEventListener("click", async () => {
  const { open } = await import("./class.js");
  await open({ philosopher: kept.philosopher, question: message.value || memory.thread[0]?.question || "", passages: context.value });
});
addEventListener("hashchange", () => location.hash.startsWith(LESSON) && location.reload());
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) course.stop();
});
addEventListener("pagehide", () => memory.save());

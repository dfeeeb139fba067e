/** The conversation on the page. Articles are added to the log and filled in place, so that each is announced once. */

import { render } from "./markdown.js";
import { passagesOf, read } from "./passages.js";
import { portrait } from "./people.js";
import { button, element, sentence, site } from "./site.js";
import { typeset } from "./typography.js";

const CUT = ["LENGTH", "DEADLINE"];

export class Talk {
  /** @param {{again: () => void, more: () => void, copy: (text: string) => void}} actions */
  constructor(log, actions) {
    this.log = log;
    this.actions = actions;
  }

  /** Shows the thread of another conversation, without announcing it. */
  show(thread, philosopher) {
    Object.assign(this, { thread, philosopher });
    this.log.ariaLive = "off";
    this.log.replaceChildren();
    thread.forEach((_, index) => this.#add(index));
    this.log.ariaBusy = "false";
  }

  /** Shows what has been added to the thread, and its last answer so far. */
  grow() {
    const { length } = this.thread;
    this.log.ariaLive = "polite";
    // A screen reader announces an answer when it is complete, not each piece.
    this.log.ariaBusy = String(this.thread[length - 1]?.state === "asked");
    const fresh = this.log.children.length < 2 * length;
    if (!fresh) return this.#fill(length - 1);
    if (length > 1) this.#tools(length - 2);
    this.#add(length - 1);
  }

  /** Removes the last question and its answer. */
  drop() {
    this.log.lastElementChild.remove();
    this.log.lastElementChild.remove();
    if (this.thread.length) this.#fill(this.thread.length - 1);
    this.log.ariaBusy = "false";
  }

  #add(index) {
    const question = element("article", "question");
    question.append(element("h3", "speaker", "Question"), element("p", "said", typeset(this.thread[index].question)));
    const answer = element("article", "answer");
    const heading = element("h3", "speaker");
    heading.append(portrait(this.philosopher), site.people[this.philosopher].name);
    answer.append(heading, element("div", "text"), element("div", "notes"), element("div", "tools"));
    this.log.append(question, answer);
    this.#fill(index);
  }

  #fill(index) {
    const exchange = this.thread[index];
    const article = this.log.children[2 * index + 1];
    const [, text, notes] = article.children;
    const former = !exchange.answer && exchange.former;
    article.className = `answer ${exchange.state}${former ? " former" : ""}`;
    render(text, (former || exchange).answer);
    notes.replaceChildren(...(exchange.state === "asked" ? [] : about(exchange, this.thread[index - 1])));
    this.#tools(index);
  }

  #tools(index) {
    const exchange = this.thread[index];
    const last = index === this.thread.length - 1;
    const buttons = exchange.state === "asked" ? [] : this.#buttons(exchange, last);
    this.log.children[2 * index + 1].lastElementChild.replaceChildren(...buttons);
  }

  *#buttons({ answer, notes }, last) {
    if (answer) yield button("Copier", () => this.actions.copy(answer));
    if (last && notes.some((note) => CUT.includes(note))) yield button("Continuer", this.actions.more);
    if (last) yield button("Reposer la question", this.actions.again);
  }
}

/** Yields the notes that a reader needs about an answer. */
function* about({ answer, state, notes, passages }, before) {
  if (!answer) yield note(site.notes.NONE);
  else if (state === "stopped") yield note(site.notes.STOPPED);
  for (const [code, tokens] of notes.map((each) => each.split(" "))) {
    if (code === "UNREAD") yield note(unread(passages, Number(tokens)));
    else if (site.notes[code]) yield note(site.notes[code]);
  }
  if (passages) yield sources(passages, before?.passages);
}

function unread(passages, tokens) {
  const amount = read(passages, tokens);
  return sentence(["unread", "unread_but_one"][amount.read] ?? "unread_some", amount);
}

const note = (text) => element("p", "note", text);

/** The passages sent with the question; only a note if they are those of the question before. */
function sources(passages, before) {
  const given = passagesOf(passages);
  if (passages === before) return note(sentence("with_same", { count: given.length }));
  const details = element("details", "sources");
  details.append(element("summary", "", sentence("with", { count: given.length })));
  details.append(...given.map((passage) => element("blockquote", "", typeset(passage))));
  return details;
}

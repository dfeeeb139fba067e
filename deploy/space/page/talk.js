/** The conversation as it is shown. */

import { render } from "./markdown.js";

const SVG = "http://www.w3.org/2000/svg";

/** The drawing of a philosopher; his name stands beside it. */
export function portrait(philosopher) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 96 96");
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("class", "portrait");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `page/portraits.svg#${philosopher}`);
  drawing.append(use);
  return drawing;
}

export class Talk {
  /** @param {{again: () => void, copy: (text: string) => void}} actions */
  constructor(log, actions) {
    this.log = log;
    this.actions = actions;
  }

  /** Shows a thread; `busy` while its last answer is being written. */
  show(thread, philosopher, name, busy) {
    this.log.replaceChildren(...thread.flatMap((exchange, index) => {
      const last = index === thread.length - 1;
      return [asked(exchange), this.#answered(exchange, philosopher, name, last, last && busy)];
    }));
    // A screen reader is told of an answer when it is whole, not of each piece.
    this.log.setAttribute("aria-busy", String(busy));
  }

  /** The newest answer, as far as it has come; the page follows it unless its reader has scrolled away. */
  write(text) {
    const follows = innerHeight + scrollY > document.documentElement.scrollHeight - 160;
    const body = this.log.querySelector("article:last-child .text");
    if (!body) return;
    render(body, text);
    if (follows) this.reveal();
  }

  reveal() {
    document.querySelector("#ask").scrollIntoView({ block: "end" });
  }

  #answered(exchange, philosopher, name, last, busy) {
    const article = element("article", `answer ${exchange.state}`);
    const heading = element("h3", "speaker");
    heading.append(portrait(philosopher), name);
    const text = element("div", "text");
    render(text, exchange.answer);
    if (exchange.answer || busy) article.append(heading);
    article.append(text);
    if (busy) {
      if (!exchange.answer) text.append(element("span", "pulse"));
      return article;
    }
    if (!exchange.answer) text.append(element("p", "note", "Pas de réponse."));
    else if (exchange.state === "stopped") text.append(element("p", "note", "Réponse interrompue."));
    article.append(this.#buttons(exchange, last));
    return article;
  }

  #buttons({ answer }, last) {
    const row = element("div", "tools");
    if (answer) row.append(button("Copier", () => this.actions.copy(answer)));
    if (last) row.append(button("Redemander", this.actions.again));
    return row;
  }
}

function asked({ question }) {
  const article = element("article", "question");
  article.append(element("h3", "unseen", "Toi"), element("p", "", question));
  return article;
}

function element(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function button(text, action) {
  const made = Object.assign(element("button", "quiet", text), { type: "button" });
  made.addEventListener("click", action);
  return made;
}

/** The conversation as a file: who spoke, when, with which passages, and that a model wrote it. */

import { find, site } from "./site.js";

const STYLE = `body { max-width: 40rem; margin: 2rem auto; padding: 0 1rem; font: 1.05rem/1.6 Georgia, serif; }
h1, h2, h3 { font-weight: 400; } h3 { margin: 1.5rem 0 0; font-variant: small-caps; } p { white-space: pre-wrap; }
.note, #imprint, .sources { color: #555; } blockquote { margin: 0.5rem 0 0.5rem 1rem; white-space: pre-wrap; }`;

/** Saves the conversation as it is shown, as a self-contained HTML page. */
export function save({ thread, kept: { philosopher } }) {
  const title = `${site.people[philosopher].name}, ${find("date").textContent}`;
  const sheet = document.implementation.createHTMLDocument(title);
  sheet.documentElement.lang = "fr";
  sheet.head.append(made(sheet, "style", STYLE), Object.assign(sheet.createElement("meta"), { charset: "utf-8" }));
  sheet.body.append(made(sheet, "h1", title), sheet.importNode(find("imprint"), true));
  sheet.body.append(...Array.from(find("conversation").children, (article) => sheet.importNode(article, true)));
  for (const control of sheet.querySelectorAll("button, svg, #date, .tools, :empty:not(meta, hr)")) control.remove();
  for (const details of sheet.querySelectorAll("details")) details.open = true;
  const file = new Blob(["<!doctype html>", sheet.documentElement.outerHTML], { type: "text/html" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file) });
  link.download = `${philosopher}-${new Date(thread.at(-1).at).toLocaleDateString("sv")}.html`; // like 2026-11-27
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function made(sheet, name, text) {
  return Object.assign(sheet.createElement(name), { textContent: text });
}

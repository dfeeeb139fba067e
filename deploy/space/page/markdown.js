/**
 * The Markdown of an answer: paragraphs, verse, lists, quotations, headings, **strong** and *emphasis*.
 *
 * Elements are made one by one and text stays text: no HTML, link or image can come of it, whatever the model writes.
 */

import { typeset } from "./typography.js";

const ITEM = /^ {0,3}(?:[-*•]|(\d{1,9})[.)])[ \t]+(?=\S)/;
const QUOTE = /^ {0,3}> ?/;
const HEADING = /^ {0,3}#{1,6}[ \t]+/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const DEEP = 6; // quotations and lists inside each other
const INLINE =
  /\\([\\*_`#>-])|\*\*\*(?=\S)(.+?)(?<=\S)\*\*\*|\*\*(?=\S)(.+?)(?<=\S)\*\*|\*(?=[^\s*])(.+?)(?<=[^\s*])\*(?!\*)|(?<![\p{L}\d_])_(?=[^\s_])(.+?)(?<=[^\s_])_(?![\p{L}\d_])/gsu;

/** Fills `parent` with the text; blocks that have not changed stay, so that text can be selected while more comes. */
export function render(parent, text) {
  const fresh = blocks(text.trimEnd().split(/\r?\n/), 0);
  const same = fresh.findIndex((block, index) => !parent.children[index]?.isEqualNode(block));
  const kept = same < 0 ? fresh.length : same;
  while (parent.childNodes.length > kept) parent.lastChild.remove();
  parent.append(...fresh.slice(kept));
}

function blocks(lines, depth) {
  const made = [];
  let at = 0;
  const next = (element, count) => {
    made.push(element);
    at += count;
  };
  while (at < lines.length) {
    const rest = lines.slice(at);
    if (!rest[0].trim()) at++;
    else if (RULE.test(rest[0])) next(document.createElement("hr"), 1);
    else if (HEADING.test(rest[0])) next(filled("p", [filled("strong", inline(rest[0].replace(HEADING, "")))]), 1);
    else if (depth < DEEP && QUOTE.test(rest[0])) next(...quotation(rest, depth));
    else if (depth < DEEP && ITEM.test(rest[0])) next(...list(rest, depth));
    else next(...paragraph(rest, depth));
  }
  return made;
}

/** The lines up to one that begins something else; a line that ends stays a line, as in verse. */
function paragraph(lines, depth) {
  const end = lines.findIndex((line, index) => index > 0 && (!line.trim() || (depth < DEEP && begins(line))));
  const count = end < 0 ? lines.length : end;
  return [filled("p", inline(lines.slice(0, count).join("\n"))), count];
}

/** Whether a line ends the paragraph before it; of numbers only 1 does, so that a year at a line's start does not. */
function begins(line) {
  const item = ITEM.exec(line);
  return QUOTE.test(line) || HEADING.test(line) || RULE.test(line) || (item && (item[1] ?? "1") === "1");
}

function quotation(lines, depth) {
  const end = lines.findIndex((line) => !QUOTE.test(line));
  const quoted = end < 0 ? lines : lines.slice(0, end);
  return [filled("blockquote", blocks(quoted.map((line) => line.replace(QUOTE, "")), depth + 1)), quoted.length];
}

/** Items of one kind, with what is indented below them; each keeps the number that was written. */
function list(lines, depth) {
  const numbered = Boolean(ITEM.exec(lines[0])[1]);
  const indent = new RegExp(`^ {0,${/^ */.exec(lines[0])[0].length}}`);
  const items = [];
  let count = 0;
  for (let blank = false; count < lines.length; count++) {
    const line = lines[count].replace(indent, "");
    const [mark, number] = ITEM.exec(line) ?? [];
    if (mark && Boolean(number) === numbered && !/^ {2}/.test(line)) items.push({ number, lines: [line.slice(mark.length)] });
    else if (!line.trim() || /^(?: {2}|\t)/.test(line)) items.at(-1).lines.push(line.replace(/^(?: {1,4}|\t)/, ""));
    else if (blank || begins(line) || mark) break;
    else items.at(-1).lines.push(line);
    blank = !line.trim();
  }
  const element = filled(numbered ? "ol" : "ul", items.map((each) => item(each, depth)));
  return [element, count];
}

function item({ number, lines }, depth) {
  const [first, ...rest] = blocks(lines, depth + 1);
  const element = filled("li", [...(first?.localName === "p" ? first.childNodes : [first ?? ""]), ...rest]);
  if (number) element.value = number;
  return element;
}

function filled(name, children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}

function inline(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, literal, both, strong, star, underscore] = match;
    nodes.push(typeset(text.slice(end, match.index)));
    if (literal) nodes.push(literal);
    else if (both) nodes.push(filled("strong", [filled("em", inline(both))]));
    else nodes.push(filled(strong ? "strong" : "em", inline(strong ?? star ?? underscore)));
    end = match.index + whole.length;
  }
  return [...nodes, typeset(text.slice(end))].filter((node) => node !== "");
}

/**
 * The little Markdown that an answer may hold: paragraphs, lists, **strong**, *emphasis*.
 *
 * Elements are made one by one and text stays text: no HTML, link or image can come of it, whatever the model writes.
 */

const INLINE = /\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|(?<![\p{L}\d])_([^_\s][^_\n]*)_(?![\p{L}\d])/gu;
const ITEM = /^\s*(?:[-*•]|\d+[.)])\s+/;

/** Fills `parent` with the text. */
export function render(parent, text) {
  parent.replaceChildren(...text.trim().split(/\n{2,}/).flatMap(block));
}

function block(text) {
  const lines = text.split("\n");
  if (!lines.every((line) => ITEM.test(line))) return [paragraph("p", lines.join("\n").replace(/^#{1,6}\s+/, ""))];
  const list = document.createElement("ul");
  list.append(...lines.map((line) => paragraph("li", line.replace(ITEM, ""))));
  return [list];
}

function paragraph(name, text) {
  const element = document.createElement(name);
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    element.append(text.slice(end, match.index), inline(match));
    end = match.index + match[0].length;
  }
  element.append(text.slice(end));
  return element;
}

function inline([, strong, star, underscore]) {
  const element = document.createElement(strong ? "strong" : "em");
  element.textContent = strong ?? star ?? underscore;
  return element;
}

/** The teacher's dialog: the contents of the link, the link itself, and its QR code. */

import { linkOf } from "./link.js";
import { qr } from "./qr.js";
import { find, sentence, site } from "./site.js";
import { typeset } from "./typography.js";

const SVG = "http://www.w3.org/2000/svg";
const QUIET = 4; // white modules around a QR code
let updates = 0;
const field = (name) => find(`class-${name}`);

/** Opens the dialog, filled with `given`: {philosopher, question, passages}. */
export function open(given) {
  if (!field("philosopher").options.length) prepare();
  for (const [name, value] of Object.entries(given)) field(name).value = value;
  find("class").showModal();
  return update();
}

function prepare() {
  field("philosopher").append(...Object.entries(site.people).map(([key, { name }]) => new Option(name, key)));
  for (const name of ["philosopher", "question", "passages"]) field(name).addEventListener("input", update);
  field("close").addEventListener("click", () => find("class").close());
  field("copy").addEventListener("click", async () => {
    field("link").select();
    const copied = await navigator.clipboard?.writeText(field("link").value).then(() => true, () => false);
    field("state").textContent = sentence(copied ? "link_copied" : "uncopied");
  });
}

async function update() {
  const lesson = { philosopher: field("philosopher").value, question: field("question").value, passages: field("passages").value };
  const { message, passages } = site.bounds;
  const long = lesson.question.length > message || lesson.passages.length > passages;
  const mine = ++updates;
  const link = long ? "" : await linkOf(lesson);
  if (mine !== updates) return; // the fields have changed meanwhile
  const code = link && qr(link);
  field("link").value = link;
  field("copy").disabled = !link;
  field("state").textContent = typeset(long ? sentence("lesson_too_long", { message, passages }) : code ? "" : sentence("no_code"));
  field("code").replaceChildren(...(code ? [picture(code)] : []));
}

/** Draws dark modules on white, whatever the page's colours. */
function picture(rows) {
  const size = rows.length + 2 * QUIET;
  const svg = made("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": sentence("code") });
  const dark = rows.flatMap((row, y) => row.map((set, x) => (set ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")));
  svg.append(made("rect", { width: size, height: size, fill: "#fff" }), made("path", { d: dark.join("") }));
  return svg;
}

function made(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

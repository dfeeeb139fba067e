/** What the page says beside the question: what is going on, and what went wrong. */

import { find } from "./site.js";

/** The line that screen readers announce; `unseen` where the page itself shows it already. */
export function say(text, { unseen = false } = {}) {
  find("state").textContent = text;
  find("state").classList.toggle("unseen", unseen);
}

/** An alert beside the question; "" takes it away. `field` is what is wrong. */
export function complain(text, field = null) {
  for (const each of [find("message"), find("context")]) each.ariaInvalid = each === field ? "true" : null;
  const error = find("error");
  if (error.textContent === text) return;
  error.hidden = !text;
  error.textContent = text;
}

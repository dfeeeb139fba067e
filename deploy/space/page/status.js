/** What the page says beside the question: what is happening, and what went wrong. */

import { find } from "./site.js";

/** Sets the line that screen readers announce; `unseen` if the page already shows as much. */
export function say(text, { unseen = false } = {}) {
  find("state").textContent = text;
  find("state").classList.toggle("unseen", unseen);
}

/** Shows an alert beside the question; "" removes it. `field` is marked as invalid. */
export function complain(text, field = null) {
  for (const each of [find("message"), find("context")]) each.ariaInvalid = each === field ? "true" : null;
  const error = find("error");
  if (error.textContent === text) return;
  error.hidden = !text;
  error.textContent = text;
}

/** The server's settings for this page: philosophers, first questions, texts and bounds. Nothing works without them. */

export const find = (id) => document.getElementById(id);

export const LESSON = "#cours="; // follows the page's address in a teacher's link
const PATIENCE = 20_000; // ms

export const site = await settings();

async function settings() {
  try {
    const response = await fetch("page/site.json", { signal: AbortSignal.timeout(PATIENCE) });
    if (!response.ok) throw new Error(`page/site.json: ${response.status}`);
    const read = await response.json();
    find("broken").remove();
    return read;
  } catch (error) {
    find("broken").classList.remove("late");
    throw error;
  }
}

/** A sentence of `site.states` with its values filled in; the singular form if `count` is 1. */
export function sentence(key, values = {}) {
  const text = (values.count === 1 && site.states[`${key}_one`]) || site.states[key];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name].toLocaleString("fr-FR"));
}

export function element(name, className = "", text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

export function button(text, action, className = "quiet") {
  const made = Object.assign(element("button", className, text), { type: "button" });
  made.addEventListener("click", action);
  return made;
}

/** Passages of a course, as the server takes them apart (snb/prompt.py), and how many an answer left unread. */

const LETTERS = 3.4; // characters of French a token of Qwen2.5's, measured on the personas

export function passagesOf(text) {
  return text.split(/^(?:[^\S\n]*[-*_]+)?[^\S\n]*$/m).map((passage) => passage.trim()).filter(Boolean);
}

/** How many of the passages were read, about: whole ones are left out, the last first, `tokens` in all. */
export function read(text, tokens) {
  const passages = passagesOf(text);
  const distances = passages.map((_, kept) => Math.abs(passages.slice(kept).join("\n\n").length / LETTERS - tokens));
  return { read: distances.indexOf(Math.min(...distances)), count: passages.length };
}

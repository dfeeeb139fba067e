/** Splits passages as the server does (snb/prompt.py), and estimates how many of them an answer used. */

const LETTERS = 3.4; // characters of French per Qwen2.5 token, measured on the personas

export function passagesOf(text) {
  return text.split(/^(?:[^\S\n]*[-*_]+)?[^\S\n]*$/m).map((passage) => passage.trim()).filter(Boolean);
}

/** Roughly how many passages were read, as {read, count}: whole ones are left out, the last first, `tokens` tokens in all. */
export function read(text, tokens) {
  const passages = passagesOf(text);
  const distances = passages.map((_, kept) => Math.abs(passages.slice(kept).join("\n\n").length / LETTERS - tokens));
  return { read: distances.indexOf(Math.min(...distances)), count: passages.length };
}

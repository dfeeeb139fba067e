/**
 * A teacher's link: philosopher, first question and passages, in the address after `#`, which no browser sends to a
 * server; compressed, so that its QR code can still be scanned from a wall.
 */

import { passagesOf } from "./passages.js";
import { LESSON, site } from "./site.js";

/** @param {{philosopher: string, question: string, passages: string}} lesson */
export async function linkOf({ philosopher, question, passages }) {
  const text = JSON.stringify([philosopher, question.trim(), passagesOf(passages).join("\n\n")]);
  const bytes = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(text));
  const code = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  // Without the query, which in a private Space holds its owner's signature.
  return location.origin + location.pathname + LESSON + code.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** The lesson in an address's hash, which anybody may have written; null if it holds none that can be used. */
export async function lessonOf(hash) {
  try {
    const code = atob(hash.slice(LESSON.length).replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = await through(new DecompressionStream("deflate-raw"), Uint8Array.from(code, (c) => c.charCodeAt(0)));
    const [philosopher, question, passages] = JSON.parse(new TextDecoder().decode(bytes));
    const texts = typeof question === "string" && typeof passages === "string";
    const fits = texts && question.length <= site.bounds.message && passages.length <= site.bounds.passages;
    return fits && Object.hasOwn(site.people, philosopher) ? { philosopher, question, passages } : null;
  } catch {
    return null;
  }
}

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

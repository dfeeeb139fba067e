/** Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html defines them. */

/**
 * Yields `{event, data}` from a stream of bytes, however it is chunked. An event that the stream's end cuts off is dropped.
 *
 * @param {AsyncIterable<Uint8Array>} body
 */
export async function* events(body) {
  let event = "";
  let data = [];
  for await (const line of lines(body)) {
    if (line === "") {
      if (data.length) yield { event: event || "message", data: data.join("\n") };
      [event, data] = ["", []];
      continue;
    }
    const [, field, value] = /^([^:]*):? ?([^]*)$/.exec(line);
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
}

/** Yields whole lines only; a line ends with LF, CR or CRLF. */
async function* lines(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of body) {
    rest += decoder.decode(bytes, { stream: true });
    const held = rest.endsWith("\r") ? 1 : 0; // its LF may be in the next chunk
    const parts = rest.slice(0, rest.length - held).split(/\r\n|\r|\n/);
    rest = parts.pop() + rest.slice(rest.length - held);
    yield* parts;
  }
  if (rest.endsWith("\r")) yield rest.slice(0, -1);
}

/** Server-sent events, with each kind of line ending and chunks of every size. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { events } from "../src/events.js";

const TEXT = ": a comment\nid: 7\nevent: output\ndata: l’être\ndata:  et le néant\n\ndata: fin\n\n";
const WANTED = [{ event: "output", data: "l’être\n et le néant" }, { event: "message", data: "fin" }];

async function read(chunks) {
  const all = [];
  for await (const event of events(chunks)) all.push(event);
  return all;
}

for (const [name, end] of Object.entries({ LF: "\n", CR: "\r", CRLF: "\r\n" })) {
  test(`lines that end with ${name}, in chunks of every size`, async () => {
    const bytes = new TextEncoder().encode(TEXT.replaceAll("\n", end));
    for (let size = 1; size <= bytes.length; size++) {
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
      assert.deepEqual(await read(chunks), WANTED);
    }
  });
}

test("an event that the end has cut is dropped", async () => {
  assert.deepEqual(await read([new TextEncoder().encode("data: a\n\ndata: b\n")]), [{ event: "message", data: "a" }]);
});

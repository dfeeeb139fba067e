/**
 * Streams an answer as lines of JSON: `{"text"}` for each piece, `{"restart"}` if another backend starts it over, then
 * `{"done"}`, with a notice if it was not the trained model that answered, or `{"error"}` with a code.
 */

import { streamSNB } from "snb-client";

export default async (request) => {
  const caller = request.headers.get("x-nf-client-connection-ip"); // set by Netlify; only its hash is sent on
  const { philosopher, ragContext = "", userMessage, history = [] } = await request.json();
  const left = new AbortController();
  request.signal.addEventListener("abort", () => left.abort());
  const lines = new ReadableStream({
    cancel: () => left.abort(),
    async start(controller) {
      const line = (value) => controller.enqueue(new TextEncoder().encode(`${JSON.stringify(value)}\n`));
      try {
        const onRestart = () => line({ restart: true });
        const options = { history, caller, signal: left.signal, onRestart };
        const answer = streamSNB(philosopher, ragContext, userMessage, options);
        for await (const text of answer) line({ text });
        line({ done: true, notice: (await answer.result).metrics.notice });
      } catch (error) {
        line({ error: error.code ?? "BACKEND_FAILED" });
      }
      controller.close();
    },
  });
  return new Response(lines, { headers: { "content-type": "application/x-ndjson", "cache-control": "no-store" } });
};

export const config = { path: "/api/ask", method: "POST" };

/** Starts an answer and returns, at once, the handle for poll.mjs. */

import { startSNB } from "snb-client";

export default async (request) => {
  const caller = request.headers.get("x-nf-client-connection-ip"); // set by Netlify; only its hash is sent on
  const { philosopher, ragContext = "", userMessage, history = [] } = await request.json();
  try {
    return Response.json({ handle: await startSNB(philosopher, ragContext, userMessage, { history, caller }) });
  } catch (error) {
    return Response.json({ error: error.code ?? "BACKEND_FAILED" });
  }
};

export const config = { path: "/api/start", method: "POST" };

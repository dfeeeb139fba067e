/** Starts an answer and returns at once: what to give to poll.mjs. */

import { startSNB } from "snb-client";

export default async (request) => {
  const { philosopher, ragContext = "", userMessage, history = [] } = await request.json();
  try {
    return Response.json({ handle: await startSNB(philosopher, ragContext, userMessage, { history }) });
  } catch (error) {
    return Response.json({ error: error.code ?? "BACKEND_FAILED" });
  }
};

export const config = { path: "/api/start", method: "POST" };

/** Returns what there is of an answer, after at most five seconds; DELETE stops it. */

import { cancelSNB, pollSNB } from "snb-client";

export default async (request) => {
  const { handle } = await request.json();
  try {
    if (request.method === "DELETE") return Response.json({ canceled: await cancelSNB(handle).then(() => true) });
    const { error, backend: _, ...look } = await pollSNB(handle);
    return Response.json({ ...look, ...(error && { error: error.code }) });
  } catch (error) {
    return Response.json({ status: "failed", error: error.code ?? "BACKEND_FAILED" });
  }
};

export const config = { path: "/api/poll", method: ["POST", "DELETE"] };

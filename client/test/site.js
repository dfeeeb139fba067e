/** Serves the example's page and functions as Netlify would: a standard Request in, a standard Response out. */

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { Readable } from "node:stream";

const EXAMPLE = new URL("../examples/netlify/", import.meta.url);
const TYPES = { html: "text/html; charset=utf-8", css: "text/css", js: "text/javascript", json: "application/json" };
const FUNCTIONS = ["ask", "start", "poll"];

/** Serves the site on a free port; `limit` is the platform's, in ms, after which a function's response is cut off. */
export async function serve({ limit = 60_000 } = {}) {
  const loaded = await Promise.all(FUNCTIONS.map((name) => import(new URL(`netlify/functions/${name}.mjs`, EXAMPLE))));
  const functions = new Map(loaded.map((module) => [module.config.path, module]));
  const server = createServer(async (incoming, outgoing) => {
    const { pathname } = new URL(incoming.url, "http://site");
    const found = functions.get(pathname);
    if (!found) return file(pathname === "/" ? "/index.html" : pathname, outgoing);
    if (![found.config.method].flat().includes(incoming.method)) return outgoing.writeHead(405).end();
    const leaving = new AbortController();
    outgoing.on("close", () => leaving.abort());
    const timer = setTimeout(() => (outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(504).end()), limit);
    const { method, headers } = incoming;
    const body = Readable.toWeb(incoming);
    const request = new Request(`http://site${pathname}`, { method, headers, body, duplex: "half", signal: leaving.signal });
    const response = await found.default(request);
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    for await (const chunk of response.body) outgoing.write(chunk);
    clearTimeout(timer);
    outgoing.end();
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const close = () => (server.closeAllConnections(), server.close());
  return { url: `http://127.0.0.1:${server.address().port}`, close };
}

async function file(path, outgoing) {
  try {
    const content = await readFile(new URL(`public${path}`, EXAMPLE));
    outgoing.writeHead(200, { "content-type": TYPES[path.split(".").pop()] }).end(content);
  } catch {
    outgoing.writeHead(404).end();
  }
}

/** The real servers behind the tests: see tests/doors.py. */

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** Tokens of an answer so long that it is still going on when a test interferes with it. */
export const ENDLESS = 2048;
export const LONG = { maxTokens: ENDLESS, minTokens: ENDLESS };

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Starts Python, that of .venv if there is one, in the project's folder. */
export function python(args, options) {
  const program = existsSync(`${ROOT}.venv/bin/python`) ? `${ROOT}.venv/bin/python` : "python3";
  return spawn(program, args, { cwd: ROOT, stdio: ["pipe", "pipe", "inherit"], ...options });
}

/** Starts all servers, or the set named; resolves to their addresses (`urls`) and to `close()`, which ends them. */
export async function start(...which) {
  const child = python(["-m", "tests.doors", ...which]);
  const close = () => new Promise((resolve) => child.once("exit", resolve).stdin.end());
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith("{")) return { urls: JSON.parse(line), close };
  }
  throw new Error("the servers did not start");
}

/** The servers that all.js has started for every file, or new ones for this file. */
export async function open() {
  const { urls, close } = process.env.TEST_DOORS ? { urls: JSON.parse(process.env.TEST_DOORS), close() {} } : await start();
  const logged = (words) => readFileSync(urls.log, "utf8").split(words).length - 1;
  const canceled = () => logged("canceled after"); // answers canceled so far
  const made = async (tokens) => {
    const whole = `length after ${tokens} tokens`;
    await until(() => logged(whole)); // the log's line may come after the answer
    return logged(whole);
  };
  return { ...urls, canceled, made, close };
}

const ports = new Set(); // those used so far

/** Gives a server a loopback port not used before in this process: the client remembers by address which backend failed. */
export async function listen(server) {
  for (;;) {
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address();
    if (!ports.has(port)) return ports.add(port), port;
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Runs a host on a free port while `body` runs; returns what `body` returns. */
export async function host(handler, body) {
  const server = createServer(handler);
  const port = await listen(server);
  try {
    return await body(`http://127.0.0.1:${port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** Passes the head of a request on to another host, and the reply back; the caller pipes the body into the request returned. */
export function passOn(target, incoming, outgoing, { headers = incoming.headers, back = (reply) => reply.pipe(outgoing) } = {}) {
  const upstream = request(target + incoming.url, { method: incoming.method, headers }, (reply) => {
    outgoing.writeHead(reply.statusCode, reply.headers);
    back(reply);
  });
  outgoing.on("close", () => upstream.destroy());
  upstream.on("error", () => outgoing.destroy());
  return upstream;
}

/** Sets the client's variables for one test, and unsets its others. */
export function environment(variables) {
  const own = ["SNB_HANDLE_SECRET", "SNB_BACKEND_URL", "SNB_API_PREFIX", "SNB_API_KEY", "SNB_OPENAI_TOKEN", "HF_TOKEN"];
  const names = [...own, "REPLICATE_API_TOKEN", "REPLICATE_API_BASE_URL"];
  for (const name of names) delete process.env[name];
  Object.assign(process.env, { SNB_HANDLE_SECRET: "a-secret-of-the-tests", ...variables });
}

/** Resolves when `condition()` holds; rejects after `ms`. */
export async function until(condition, ms = 120_000) {
  const end = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error("it never came true");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

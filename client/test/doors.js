/** The real servers behind the tests: see tests/doors.py. */

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Starts a Cog server and the doors named; `close()` ends them. */
export async function open(...doors) {
  const python = existsSync(`${ROOT}.venv/bin/python`) ? `${ROOT}.venv/bin/python` : "python3";
  const child = spawn(python, ["-m", "tests.doors", ...doors], { cwd: ROOT, stdio: ["pipe", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.startsWith("{")) continue;
    const urls = JSON.parse(line);
    return {
      ...urls,
      canceled: () => readFileSync(urls.log, "utf8").split("canceled after").length - 1, // answers, so far
      close: () => new Promise((resolve) => child.once("exit", resolve).stdin.end()),
    };
  }
  throw new Error("the servers did not start");
}

/** Sets variables for one test; gives back a function that restores them. */
export function environment(variables) {
  const names = ["SNB_BACKEND_URL", "SNB_API_PREFIX", "SNB_API_KEY", "REPLICATE_API_TOKEN", "REPLICATE_API_BASE_URL"];
  for (const name of names) delete process.env[name];
  Object.assign(process.env, variables);
}

/** Resolves when `condition` holds; fails after `ms`. */
export async function until(condition, ms = 120_000) {
  const end = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error("it never came true");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

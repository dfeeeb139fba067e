/** Runs all test files, or those named, in turn against one set of servers; arguments are passed on to node --test. */

import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { start } from "./doors.js";

const HERE = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
const named = process.argv.slice(2);
const files = named.some((name) => name.endsWith(".js")) ? [] : readdirSync(HERE).filter((name) => name.endsWith(".test.js"));
const { urls, close } = await start();
const env = { ...process.env, TEST_DOORS: JSON.stringify(urls) };
const command = ["--test", "--test-concurrency=1", ...named, ...files.map((name) => `${HERE}/${name}`)];
const tests = spawn(process.execPath, command, { env, stdio: "inherit" });
process.once("SIGTERM", () => tests.kill());
process.exitCode = await new Promise((resolve) => tests.once("exit", (code) => resolve(code ?? 1)));
await close();

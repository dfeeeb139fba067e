/** Debian's Chromium, headless, for tests of pages; and a folder for what they looked like. */

import { existsSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const CHROMIUM = "/usr/bin/chromium";
// Without a sandbox, for CI is root; the rest keeps it from asking hosts of its own.
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Why tests of pages are skipped here; false where they are not. */
export const skip = existsSync(CHROMIUM) ? false : `${CHROMIUM} is not installed`;

export async function launch() {
  const { chromium } = await import("playwright-core");
  return chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
}

/** The folder `build/<name>/`, which is there afterwards. */
export function screenshots(name) {
  const folder = fileURLToPath(new URL(`../../build/${name}/`, import.meta.url));
  mkdirSync(folder, { recursive: true });
  return folder;
}

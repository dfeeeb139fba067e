/** Debian's Chromium, headless, for tests of pages; and screenshots of them. */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const CHROMIUM = "/usr/bin/chromium";
// No sandbox, since CI runs as root; the rest keeps Chromium from contacting hosts of its own.
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Why tests of pages are skipped on this machine; false if they are not. */
export const skip = existsSync(CHROMIUM) ? false : `${CHROMIUM} is not installed`;

export async function launch() {
  const { chromium } = await import("playwright-core");
  return chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
}

/** Returns a function that saves a screenshot of a page in build/<folder>/ if SCREENSHOTS is set, and else does nothing. */
export function camera(folder) {
  const path = fileURLToPath(new URL(`../../build/${folder}/`, import.meta.url));
  return async (page, name, options = {}) => {
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${path}${name}.png`, ...options });
  };
}

/** Debian's Chromium, headless, for tests of pages; and pictures of what they looked like. */

import { existsSync } from "node:fs";
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

/** A function that takes a picture of a page into build/<folder>/ where SCREENSHOTS is set, and else does nothing. */
export function camera(folder) {
  const path = fileURLToPath(new URL(`../../build/${folder}/`, import.meta.url));
  return async (page, name, options = {}) => {
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${path}${name}.png`, ...options });
  };
}

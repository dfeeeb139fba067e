/** Which backends there are: from the options, else from the environment. */

import { Cog } from "./cog.js";
import { SNBError } from "./error.cjs";
import { Gradio } from "./gradio.js";
import { bearer, json } from "./http.js";
import { Replicate } from "./replicate.js";

const DEFAULT = { urls: "fjdaz-spinoza-nb.hf.space", prefix: "/gradio_api" };
const SECRETS = ["REPLICATE_API_TOKEN", "REPLICATE_API_BASE_URL", "SNB_API_KEY", "HF_TOKEN"];
const known = new Map();

/**
 * In order of preference, each `{name, open(signal)}`; `open` resolves to a Cog, a Replicate or a Gradio.
 *
 * `SNB_BACKEND_URL` is one or several, separated by commas: `replicate:owner/name[:version]`,
 * `replicate:deployments/owner/name`, a URL or a host's name. With `SNB_API_PREFIX` every host is a Gradio app.
 */
export function configuredBackends({ backends } = {}) {
  const { SNB_BACKEND_URL: urls, SNB_API_PREFIX: prefix } = process.env;
  const listed = backends ?? urls ?? DEFAULT.urls;
  const specs = (Array.isArray(listed) ? listed : listed.split(",")).map((spec) => spec.trim()).filter(Boolean);
  if (!specs.length) throw new SNBError("BAD_INPUT", "SNB_BACKEND_URL names no backend");
  const fallback = backends || urls ? undefined : DEFAULT.prefix;
  return specs.map((spec) => backend(spec, prefix || fallback));
}

/** One object for each configuration, so that what was learned of a host is learned once. */
function backend(spec, prefix) {
  const key = JSON.stringify([spec, prefix, ...SECRETS.map((name) => process.env[name])]);
  if (!known.has(key)) known.set(key, spec.startsWith("replicate:") ? remote(spec) : host(spec, prefix));
  return known.get(key);
}

function remote(spec) {
  const replicate = new Replicate(spec.slice("replicate:".length));
  return { name: replicate.name, open: async () => replicate };
}

function host(spec, prefix) {
  let url;
  try {
    url = new URL(/^https?:\/\//.test(spec) ? spec : `https://${spec}`);
  } catch {
    throw new SNBError("BAD_INPUT", "SNB_BACKEND_URL: an entry is neither a host nor a URL");
  }
  let opened;
  const open = async (signal) => (opened ??= prefix ? new Gradio(url, prefix) : await identified(url, signal));
  return { name: new Cog(url).name, open };
}

/** Asks a host what it is: Cog's `GET /` and Gradio's `/gradio_api/info` name themselves. */
async function identified(url, signal) {
  const base = url.href.replace(/\/$/, "");
  const [root, info] = await Promise.allSettled([
    json(`${base}/`, { signal, headers: { ...bearer(process.env.SNB_API_KEY), Accept: "application/json" } }),
    json(`${base}/gradio_api/info`, { signal }),
  ]);
  if (root.value?.cog_version) return new Cog(url);
  if (info.value?.named_endpoints) return new Gradio(url, "/gradio_api");
  const { reason } = root;
  if (reason && !/ 40[34]\b/.test(reason.message)) throw reason;
  throw new SNBError("BACKEND_FAILED", "the host answers neither as Cog nor as Gradio");
}

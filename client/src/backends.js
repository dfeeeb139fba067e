/** The configured backends, from the options or else from the environment. */

import { Cog } from "./cog.js";
import { SNBError, badSetting } from "./error.cjs";
import { Gradio } from "./gradio.js";
import { OpenAI } from "./openai.js";
import { Replicate } from "./replicate.js";

const DEFAULT = "fjdaz-spinoza-nb.hf.space";
const PREFIX = "/gradio_api"; // since Gradio 5
const SECRETS = ["REPLICATE_API_TOKEN", "REPLICATE_API_BASE_URL", "SNB_API_KEY", "HF_TOKEN", "SNB_OPENAI_TOKEN"];
const HOSTNAME = /^(\[[\da-f:.]+\]|[\w-]+(\.[\w-]+)*\.?)$/; // no empty label, no unexpanded shell variable
const PLACEHOLDER = /\b(POD|HOST|COMPTE|ADRESSE|MODEL)\b|\b(ton|votre)-(pod|space|serveur)\b/;
const EXAMPLE = "https://abc123-5000.proxy.runpod.net";
const PAGES = {
  "huggingface.co": (owner, name) => `${`${owner}-${name}`.replace(/[_.]/g, "-").toLowerCase()}.hf.space`,
  "replicate.com": (owner, name) => `replicate:${owner}/${name}`,
};
const known = new Map();

/**
 * The backends in order of preference, each `{name, open(signal)}`; `open` resolves to a Cog, Gradio, Replicate or OpenAI.
 *
 * `SNB_BACKEND_URL` names one or several, separated by commas: `replicate:owner/name[:version]`,
 * `replicate:deployments/owner/name`, `openai:https://host/v1#model`, a URL or a host's name.
 *
 * @throws {SNBError} BAD_SETTING
 */
export function configuredBackends({ backends } = {}) {
  const { SNB_BACKEND_URL: urls, SNB_API_PREFIX } = process.env;
  const specs = listed(backends || urls || "");
  if (!specs.length && backends) throw badSetting("the option backends names no backend");
  const path = plain(SNB_API_PREFIX ?? "").replace(/^\/+|\/+$/g, "");
  const prefix = path ? `/${path}` : undefined;
  return specs.length ? specs.map((spec) => backend(spec, prefix)) : [backend(DEFAULT, prefix ?? PREFIX)];
}

const listed = (value) => (Array.isArray(value) ? value : plain(value).split(",")).map(plain).filter(Boolean);

/** A value without an .env file's comment, and without the spaces and quotation marks pasted around it. */
const plain = (text) => text.replace(/(?:^|\s)#[^]*/, "").replace(/^[\s"'“”‘’«»]+|[\s"'“”‘’«»]+$/g, "");

/** One object per configuration, so that what is learned about a host is learned once. */
function backend(spec, prefix) {
  const key = JSON.stringify([spec, prefix, ...SECRETS.map((name) => process.env[name])]);
  if (!known.has(key)) known.set(key, made(spec, prefix));
  return known.get(key);
}

function made(spec, prefix) {
  if (PLACEHOLDER.test(spec)) throw unusable(spec, `still has the example's word in it: write your own, such as ${EXAMPLE}`);
  const [, kind, rest] = /^(?:(replicate|openai):)?([^]*)$/i.exec(spec);
  if (!kind) return host(address(rest), prefix);
  const remote = kind.toLowerCase() === "openai" ? general(rest) : new Replicate(rest);
  return { name: remote.name, open: async () => remote };
}

function general(spec) {
  const [base, model] = spec.split(/#([^]*)/);
  const url = address(base);
  if (!model) throw unusable(spec, `names no model: write openai:${url.href}#, and the model's name there`);
  return new OpenAI(url, model);
}

/** The URL of an entry, with `https://` where it has no scheme. */
function address(text) {
  let url;
  try {
    url = new URL(/^[a-z][a-z\d+.-]*:(?!\d)/i.test(text) ? text : `https://${text}`);
  } catch {
    throw unusable(text, `is no address: write one such as ${EXAMPLE}`);
  }
  const { protocol, hostname, origin, pathname, username, search, hash } = url;
  if (!/^https?:$/.test(protocol) || !HOSTNAME.test(hostname) || /^\/\/./.test(pathname)) {
    throw unusable(text, `is no host that can be asked: write an address such as ${EXAMPLE}`);
  }
  const page = /^\/(?:spaces\/)?([\w.-]+)\/([\w.-]+)/.exec(pathname);
  if (page && PAGES[hostname]) throw unusable(text, `is a page about it: write ${PAGES[hostname](page[1], page[2])}`);
  if (username || search || hash) throw unusable(text, `holds more than an address: write ${origin}${pathname}`);
  return url;
}

/** Shows the entry without its password, and without a key that may follow `?` or `#`. */
const unusable = (text, fault) =>
  badSetting(`SNB_BACKEND_URL: ${text.replace(/\/\/[^/]*@/, "//").replace(/[?#][^]*/, "")} ${fault}`);

/**
 * A host, which is asked before each question whether it is still what it was, Cog or Gradio. The check costs nothing, and
 * it is this request, not the question, that meets a connection which the host has closed while idle.
 */
function host(url, prefix) {
  const cog = new Cog(url);
  const gradio = new Gradio(url, PREFIX);
  const expected = prefix && (prefix === PREFIX ? gradio : new Gradio(url, prefix));
  let opened;
  let warned = false;
  const open = async (signal) => {
    if (!(await opened?.recognised(signal).catch(() => false))) opened = await identified({ cog, gradio, expected }, signal);
    if (expected && opened !== expected && !warned) {
      const kind = opened === cog ? "a Cog server" : `a Gradio app at ${PREFIX}`;
      console.warn(`snb: SNB_API_PREFIX (${prefix}) is not used for ${url.host}, which is ${kind}: remove it`);
      warned = true;
    }
    return opened;
  };
  return { name: cog.name, open };
}

/** Asks a host what it is. With SNB_API_PREFIX set, Gradio is tried first, and a host that is Gradio gets no Cog key. */
async function identified({ cog, gradio, expected }, signal) {
  if (await expected?.recognised(signal).catch(() => false)) return expected;
  const [root, info] = await Promise.allSettled([cog.recognised(signal), gradio.recognised(signal)]);
  if (root.value) return cog;
  if (info.value) return gradio;
  if (root.reason && !/ 404 /.test(root.reason.message)) throw root.reason;
  throw new SNBError("BACKEND_FAILED", "the host answers neither as Cog nor as Gradio");
}

/**
 * Handles that pass through a browser: encrypted and authenticated, so that they reveal nothing about the host and cannot
 * be forged or altered; and they expire.
 */

import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { SNBError, badSetting } from "./error.cjs";

const LIFE = 30 * 60_000; // ms from the first seal
const CIPHER = "aes-256-gcm";
const [IV, TAG] = [12, 16]; // bytes, as NIST SP 800-38D recommends for GCM
const LONGEST_CALLER = 256; // characters
const UNSET = randomBytes(32); // keys the hashes of callers if no secret is set; another in each process
const SECRETS = ["SNB_HANDLE_SECRET", "SNB_API_KEY", "REPLICATE_API_TOKEN", "HF_TOKEN", "SNB_OPENAI_TOKEN"]; // the first that is set

/** A handle as a string for URLs and JSON. */
export function sealed(handle) {
  const iv = randomBytes(IV);
  const cipher = createCipheriv(CIPHER, key(), iv);
  const text = JSON.stringify({ until: Date.now() + LIFE, ...handle });
  return Buffer.concat([iv, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()]).toString("base64url");
}

/** The handle in such a string; throws BAD_INPUT if it was forged, altered, sealed with another secret, or is too old. */
export function unsealed(text) {
  const secretKey = key();
  let handle;
  try {
    const bytes = Buffer.from(text, "base64url");
    const decipher = createDecipheriv(CIPHER, secretKey, bytes.subarray(0, IV), { authTagLength: TAG });
    decipher.setAuthTag(bytes.subarray(-TAG));
    handle = JSON.parse(Buffer.concat([decipher.update(bytes.subarray(IV, -TAG)), decipher.final()]).toString("utf8"));
  } catch {
    throw new SNBError("BAD_INPUT", "the handle is not one of this client's");
  }
  if (Date.now() > handle.until) throw new SNBError("BAD_INPUT", "the handle is too old: ask again");
  return handle;
}

/** The key that handles are sealed with; throws BAD_SETTING if no secret is set. */
export function key() {
  if (!secret()) throw badSetting("SNB_HANDLE_SECRET is not set: handles are sealed with it");
  return Buffer.from(hkdfSync("sha256", secret(), "", "snb-client handle", 32));
}

/** The option `caller` as a server gets it: 32 hexadecimal digits, the same for the same caller; undefined for none. */
export function hashed(caller) {
  if (caller === undefined || caller === null) return undefined;
  if (typeof caller !== "string" || !caller || caller.length > LONGEST_CALLER) {
    throw new SNBError("BAD_INPUT", `caller must be a string of 1 to ${LONGEST_CALLER} characters`);
  }
  const salt = hkdfSync("sha256", secret() ?? UNSET, "", "snb-client caller", 32);
  return createHmac("sha256", Buffer.from(salt)).update(caller).digest("hex").slice(0, 32);
}

const secret = () => SECRETS.map((name) => process.env[name]).find(Boolean);

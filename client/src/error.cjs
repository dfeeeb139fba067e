"use strict";

/** What went wrong: `code` is stable, `attempts` says what each backend did. Holds no prompt, no secret. */
class SNBError extends Error {
  /**
   * @param {string} code one of BAD_INPUT, BAD_SETTING, UNAUTHORIZED, BUSY, COLD_START, TIMEOUT, CANCELED, EXPIRED,
   *   BACKEND_FAILED, ALL_BACKENDS_FAILED
   * @param {string} message what was wrong, and what to try
   * @param {{retryAfter?: number, lost?: boolean, cause?: unknown}} [details] `retryAfter` in ms, as the server asked;
   *   `lost`: the reply was lost, so whether the server took the question is unknown
   */
  constructor(code, message, { retryAfter, lost = false, cause } = {}) {
    super(`${code}: ${message}`, cause === undefined ? undefined : { cause });
    this.name = "SNBError";
    this.code = code;
    this.attempts = [];
    Object.defineProperty(this, "retryAfter", { value: retryAfter, writable: true });
    Object.defineProperty(this, "lost", { value: lost });
  }
}

/** The error for a variable that cannot work; its message is logged for the site's owner, not meant for pupils. */
function badSetting(message) {
  console.error(`snb: ${message}`);
  return new SNBError("BAD_SETTING", message);
}

module.exports = { SNBError, badSetting };

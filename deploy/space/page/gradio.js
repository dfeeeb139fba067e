/**
 * Calls the endpoint `answer` through Gradio's own queue, which also says what an answer is waiting for.
 *
 * The first event of an answer holds its text, each later one only the change: https://www.gradio.app/docs/js-client
 */

const API = "gradio_api";
const TAB = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
let questions = 0; // each has its own session, named after the tab, by which the server tells visitors apart

export class Refused extends Error {
  /** @param {string} code one of deploy/space/refusal.py's, CONNECTION or OTHER */
  constructor(code) {
    super(code);
    this.code = code;
  }
}

/**
 * Asks, and calls `on.text(text)` with the whole text so far, `on.told(code, sentence)`, `on.queued(rank)`,
 * `on.started()`, and `on.heard()` at every sign of life. Resolves when the answer is whole; aborting the signal
 * rejects at once and cancels it on the server.
 *
 * @param {{number: number, inputs: [string, any][]}} endpoint its inputs in order, each with its default
 * @param {object} given inputs by name
 */
export async function ask(endpoint, given, signal, on) {
  const data = endpoint.inputs.map(([name, value]) => given[name] ?? value);
  const session = `${TAB}-${++questions}`;
  const job = { session_hash: session, fn_index: endpoint.number };
  // Never aborted: once this is sent the question is asked, and only the reply has the id to cancel it by.
  const joined = post("queue/join", { ...job, data });
  const left = new Promise((_, reject) => {
    const leave = () => {
      joined.then(({ event_id }) => post("cancel", { ...job, event_id })).catch(() => {});
      reject(signal.reason);
    };
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave, { once: true });
  });
  const answered = async () => {
    await joined;
    await followed(await reached(`${API}/queue/data?session_hash=${session}`, { signal }), on);
  };
  await Promise.race([answered(), left]);
}

async function post(path, body) {
  const headers = { "content-type": "application/json" };
  return (await reached(`${API}/${path}`, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

async function reached(path, init) {
  const response = await fetch(path, init).catch((error) => {
    throw init.signal?.aborted ? error : new Refused("CONNECTION");
  });
  if (response.ok) return response;
  throw new Refused({ 413: "BAD_INPUT", 422: "BAD_INPUT", 503: "BUSY" }[response.status] ?? "OTHER");
}

async function followed(response, on) {
  let text = "";
  for await (const message of messages(response)) {
    const { msg, output } = message;
    on.heard();
    if (msg === "estimation") on.queued(message.rank);
    else if (msg === "process_starts") on.started();
    else if (msg === "log") on.told(message.title, message.log);
    else if (msg === "process_generating" && message.success) {
      const next = changed(text, output.data[0]);
      if (next !== text) on.text((text = next));
    } else if (msg === "process_completed" || msg === "unexpected_error") {
      if (!message.success) throw new Refused(codeOf(output?.error ?? message.message));
      if (typeof output.data?.[0] === "string" && output.data[0] !== text) on.text(output.data[0]);
      return;
    }
  }
  throw new Refused("CONNECTION");
}

/** The text after a change, which is the new text itself or a list of operations on the old one. */
export function changed(text, data) {
  if (typeof data === "string") return data;
  for (const [operation, , value] of data) text = operation === "append" ? text + value : value;
  return text;
}

const codeOf = (error) => /^([A-Z_]+): /.exec(String(error ?? ""))?.[1] ?? "OTHER";

/** The messages of a stream of server-sent events. */
async function* messages(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Refused("CONNECTION");
    });
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}

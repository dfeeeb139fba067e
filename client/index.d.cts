/** The three philosophers. */
export type Philosopher = "spinoza" | "bergson" | "kant";

/** Earlier turns, oldest first; pairs are those of Gradio's chatbot, `[question, answer]`. */
export type History = Array<{ role: "user" | "assistant"; content: string } | [string | null, string | null]>;

export type ErrorCode =
  | "BAD_INPUT"
  /** A variable of the site cannot work: the log says which, and what to write. Nothing was asked. */
  | "BAD_SETTING"
  | "UNAUTHORIZED"
  | "BUSY"
  | "COLD_START"
  | "TIMEOUT"
  | "CANCELED"
  /** The backend keeps answers for a while only, and has removed this one: ask again. */
  | "EXPIRED"
  | "BACKEND_FAILED"
  | "ALL_BACKENDS_FAILED";

export interface Options {
  history?: History;
  /** Longest answer, in tokens: 1 to 2048; 256 unless given. */
  maxTokens?: number;
  /** Shortest answer, in tokens: 0 to 2048; 0 unless given. */
  minTokens?: number;
  /** 0 to 2; 0.7 unless given. */
  temperature?: number;
  /** 0 to 1; 0.8 unless given. */
  topP?: number;
  /** 0 to 1000; 20 unless given. */
  topK?: number;
  /** 0.5 to 2; 1.05 unless given. */
  repetitionPenalty?: number;
  /** -2 to 2; 0 unless given. */
  presencePenalty?: number;
  /** -2 to 2; 0 unless given. */
  frequencyPenalty?: number;
  /** 0 to 4294967295: the same seed and inputs give the same answer; a random one unless given. */
  seed?: number;
  /** At most 16 texts, of 1 to 200 characters, that end the answer just before they would appear; `openai:` gets the first 4. */
  stopSequences?: string[];
  /** Replaces the philosopher's persona. */
  systemPrompt?: string;
  /** Instead of SNB_BACKEND_URL: a list, or one string with commas. */
  backends?: string | string[];
  /** Milliseconds for everything; SNB_TIMEOUT_MS, else 55000. The endpoint ends its answer shortly before. */
  timeoutMs?: number;
  /** Tells the callers of one site apart, as an address does: a Cog server gets its hash, and shares its places out fairly. */
  caller?: string | null;
  /** Aborting it ends the call with CANCELED, and the backend's work. */
  signal?: AbortSignal;
}

export interface CallOptions extends Options {
  /** Gets each piece of text as it comes, one after the other; the answer ends when it throws. */
  onToken?: (text: string) => void | Promise<void>;
  /** Gets who answered, and how: an answer that was cut has a `metrics.finish_reason` of `deadline` or `length`. */
  onResult?: (result: Result) => void | Promise<void>;
  /** Allows another backend to be asked after text has come; called when the text begins anew. */
  onRestart?: () => void | Promise<void>;
}

/** What one backend did. `code` is an ErrorCode, or OK. */
export interface Attempt {
  backend: string;
  code: ErrorCode | "OK";
  ms?: number;
  reason?: string;
}

export interface Result {
  text: string;
  backend: string;
  /**
   * Of the backend; `rag_context_read` is the share of `ragContext` that it read, 0 to 1, and `notice`, where there is
   * one, is a sentence about who really answered.
   */
  metrics: Record<string, unknown>;
  attempts: Attempt[];
}

/** Encrypted and authenticated with SNB_HANDLE_SECRET, else with the first key or token that is set; for half an hour. */
export type Handle = string;

export interface Look {
  status: "starting" | "queued" | "processing" | "succeeded" | "failed" | "canceled";
  text: string;
  backend?: string;
  /** What to ask with the next time. */
  handle: Handle;
  metrics?: Record<string, unknown>;
  error?: { code: ErrorCode; message: string };
}

/** Its message names the code, what was wrong and what to try; never the prompt, never a secret. */
export class SNBError extends Error {
  readonly code: ErrorCode;
  attempts: Attempt[];
}

/** Resolves to the answer's text; rejects with an SNBError, whose text is never an answer. */
export function callSNB(
  philosopher: Philosopher,
  ragContext: string,
  userMessage: string,
  options?: CallOptions,
): Promise<string>;

/** The answer as it comes; `result` resolves when it has been read to its end. */
export function streamSNB(
  philosopher: Philosopher,
  ragContext: string,
  userMessage: string,
  options?: Options & { onRestart?: CallOptions["onRestart"] },
): AsyncIterable<string> & { result: Promise<Result> };

/** Starts an answer and returns at once: after `timeoutMs` at most, 9000 unless given. */
export function startSNB(
  philosopher: Philosopher,
  ragContext: string,
  userMessage: string,
  options?: Options,
): Promise<Handle>;

/** What there is of the answer, after at most `patienceMs` (5000). */
export function pollSNB(
  handle: Handle,
  options?: { backends?: string | string[]; patienceMs?: number; coldStartMs?: number },
): Promise<Look>;

/** Stops an answer; harmless when it is over. */
export function cancelSNB(handle: Handle, options?: { backends?: string | string[] }): Promise<void>;

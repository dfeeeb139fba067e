/** The three philosophers. */
export type Philosopher = "spinoza" | "bergson" | "kant";

/** Earlier turns, oldest first; a pair is `[question, answer]`, as Gradio's chatbot has it. */
export type History = Array<{ role: "user" | "assistant"; content: string } | [string | null, string | null]>;

export type ErrorCode =
  | "BAD_INPUT"
  /** An environment variable cannot work: the log says which, and what to write. No backend was asked. */
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
  /** Replaces SNB_BACKEND_URL: a list, or one string with commas. */
  backends?: string | string[];
  /** Milliseconds for the whole call; SNB_TIMEOUT_MS or 55000 unless given. The endpoint ends its answer shortly before. */
  timeoutMs?: number;
  /** What tells a site's callers apart, such as an IP address: a Cog server gets its hash, and shares its places out fairly. */
  caller?: string | null;
  /** Aborting it rejects the call with CANCELED and stops the backend's work. */
  signal?: AbortSignal;
}

export interface CallOptions extends Options {
  /** Gets each piece of text as it comes, and is awaited; if it throws, the answer is canceled. */
  onToken?: (text: string) => void | Promise<void>;
  /** Gets the backend that answered, and how: an answer that was cut has a `metrics.finish_reason` of `deadline` or `length`. */
  onResult?: (result: Result) => void | Promise<void>;
  /** Allows another backend to be asked after text has come; called when the text starts over. */
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
   * The backend's own; `rag_context_read` is the share of `ragContext` that it read, 0 to 1, and `notice`, if there is
   * one, a sentence about what really answered.
   */
  metrics: Record<string, unknown>;
  attempts: Attempt[];
}

/** Encrypted and authenticated with SNB_HANDLE_SECRET, else with the first key or token that is set; valid for half an hour. */
export type Handle = string;

export interface Look {
  status: "starting" | "queued" | "processing" | "succeeded" | "failed" | "canceled";
  text: string;
  backend?: string;
  /** The handle for the next poll. */
  handle: Handle;
  metrics?: Record<string, unknown>;
  error?: { code: ErrorCode; message: string };
}

/** Its message gives the code, what was wrong and what to try; never the prompt, never a secret. */
export class SNBError extends Error {
  readonly code: ErrorCode;
  attempts: Attempt[];
}

/** Resolves to the answer's text, never to an error message; rejects with an SNBError. */
export function callSNB(
  philosopher: Philosopher,
  ragContext: string,
  userMessage: string,
  options?: CallOptions,
): Promise<string>;

/** The answer as it is generated; `result` resolves when it has been read to its end. */
export function streamSNB(
  philosopher: Philosopher,
  ragContext: string,
  userMessage: string,
  options?: Options & { onRestart?: CallOptions["onRestart"] },
): AsyncIterable<string> & { result: Promise<Result> };

/** Starts an answer; resolves to its handle after `timeoutMs` at most, 9000 unless given. */
export function startSNB(
  philosopher: Philosopher,
  ragContext: string,
  userMessage: string,
  options?: Options,
): Promise<Handle>;

/** Resolves to what there is of the answer, after at most `patienceMs` (5000). */
export function pollSNB(
  handle: Handle,
  options?: { backends?: string | string[]; patienceMs?: number; coldStartMs?: number },
): Promise<Look>;

/** Stops an answer; harmless if it is over. */
export function cancelSNB(handle: Handle, options?: { backends?: string | string[] }): Promise<void>;

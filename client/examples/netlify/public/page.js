/** Asks by stream; where nothing answers in time (a cold model, a short limit), asks again by start and poll. */

const NAMES = { spinoza: "Spinoza", bergson: "Bergson", kant: "Kant" };
const LATER = ["COLD_START", "TIMEOUT", "BUSY", "ALL_BACKENDS_FAILED", "CUT"];
const ERRORS = {
  BAD_INPUT: "Cette question ne peut pas être posée telle quelle : raccourcis-la ou reformule-la.",
  UNAUTHORIZED: "Le philosophe refuse la clé du site. Préviens ton professeur.",
  BAD_SETTING: "Le site est mal réglé. Préviens ton professeur.",
  BUSY: "Trop d’élèves parlent en même temps. Attends une minute, puis repose ta question.",
  CANCELED: "Réponse arrêtée.",
};
const UNKNOWN = "Le philosophe ne répond pas. Réessaie dans une minute ; si cela dure, préviens ton professeur.";
const WAITS = {
  starting: "Le philosophe se réveille… (deux à trois minutes)",
  queued: "Le philosophe termine une autre conversation…",
};

const form = document.querySelector("#question");
const conversation = document.querySelector("#conversation");
const state = document.querySelector("#state");
const stop = document.querySelector("#stop");
const history = [];

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { philosopher, message } = Object.fromEntries(new FormData(form));
  const leaving = new AbortController();
  stop.onclick = () => leaving.abort();
  busy(true);
  bubble(message, "question");
  const answer = bubble("", "answer");
  const question = { philosopher, userMessage: message, history };
  state.textContent = `${NAMES[philosopher]} réfléchit…`;
  try {
    await streamed(question, answer, leaving.signal).catch((error) => {
      if (answer.textContent || !LATER.includes(error.message)) throw error;
      return later(question, answer, leaving.signal);
    });
    history.push({ role: "user", content: message }, { role: "assistant", content: answer.textContent });
    form.message.value = "";
    state.textContent = "";
  } catch (error) {
    const code = leaving.signal.aborted ? "CANCELED" : error.message;
    state.textContent = "";
    if (!answer.textContent) answer.remove();
    bubble(ERRORS[code] ?? UNKNOWN, "error");
  }
  busy(false);
});

async function streamed(question, answer, signal) {
  const response = await post("/api/ask", question, signal);
  if (!response.ok || !response.body) throw new Error("CUT");
  let rest = "";
  for await (const text of chunks(response.body.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const part = JSON.parse(line);
      if (part.error) throw new Error(part.error);
      if (part.notice) bubble(part.notice, "notice");
      if (part.done) return;
      show(answer, part.restart ? "" : answer.textContent + part.text);
    }
  }
  throw new Error("CUT"); // the platform's time limit
}

async function later(question, answer, signal) {
  state.textContent = WAITS.starting;
  const { handle, error } = await (await post("/api/start", question, signal)).json();
  if (error) throw new Error(error);
  let look = { handle };
  try {
    do {
      look = await (await post("/api/poll", { handle: look.handle }, signal)).json();
      if (look.status === "failed" || look.status === "canceled") throw new Error(look.error);
      state.textContent = WAITS[look.status] ?? "";
      if (look.text) show(answer, look.text);
      if (WAITS[look.status]) await new Promise((resolve) => setTimeout(resolve, 1000));
    } while (look.status !== "succeeded");
  } catch (error_) {
    if (signal.aborted) post("/api/poll", { handle: look.handle }, undefined, "DELETE");
    throw error_;
  }
}

/** Browsers without async iteration of streams still have readers. */
async function* chunks(stream) {
  const reader = stream.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

const post = (path, body, signal, method = "POST") =>
  fetch(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

function show(answer, text) {
  state.textContent = "";
  answer.textContent = text;
  answer.scrollIntoView({ block: "nearest" });
}

function bubble(text, kind) {
  const article = document.createElement("article");
  article.className = kind;
  article.textContent = text;
  if (kind === "error") article.setAttribute("role", "alert");
  conversation.append(article);
  return article;
}

function busy(now) {
  form.querySelector("[type=submit]").disabled = now;
  stop.hidden = !now;
}

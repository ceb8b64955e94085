// Talk with the server. A stroke waits in this browser until the server has it on disk, also through a reload.

const SHELF = "gansegctl-strokes";

/** The server did not answer, or (with a status) answered no: nothing is wrong with the page itself. */
export class Unanswered extends Error {}

async function ask(path, body) {
  const options = { credentials: "same-origin" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options).catch((error) => { throw new Unanswered(error.message); });
  if (!answer.ok) {
    let why = `status ${answer.status}`;
    try {
      why = (await answer.json()).error || why;
    } catch { /* not JSON: the status says it */ }
    throw Object.assign(new Unanswered(why), { status: answer.status });
  }
  return answer;
}

/** A body may break off half way too, when the server ends. */
async function read(answer, how) {
  return answer[how]().catch((error) => { throw new Unanswered(error.message); });
}

export const getJson = async (path) => read(await ask(path), "json");
export const postJson = async (path, body) => read(await ask(path, body), "json");
export const getBytes = async (path) => read(await ask(path), "arrayBuffer");
export const postForBytes = async (path, body) => read(await ask(path, body), "arrayBuffer");

export async function getImage(path) {
  const image = new Image();
  image.src = path;
  await image.decode().catch((error) => { throw new Unanswered(error.message); });
  return image;
}

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/** Strokes on their way, in order. The server knows each by its id, so sending one twice does no harm. */
export class Outbox {
  constructor(onAnswer, onState) {
    this.onAnswer = onAnswer; // (stroke, answer, whether it was the last one waiting)
    this.onState = onState; // ("saved" | "saving" | "away", how many wait)
    this.waiting = JSON.parse(localStorage.getItem(SHELF) || "[]");
    this.sending = false;
  }

  put(stroke) {
    this.waiting.push({ id: newId(), ...stroke });
    this.keep();
    this.send();
  }

  keep() {
    try {
      if (this.waiting.length) localStorage.setItem(SHELF, JSON.stringify(this.waiting));
      else localStorage.removeItem(SHELF);
    } catch { /* the browser's store is full: the stroke still waits in memory */ }
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    while (this.waiting.length) {
      this.onState("saving", this.waiting.length);
      const stroke = this.waiting[0];
      try {
        const answer = await postJson("api/strokes", stroke);
        this.waiting.shift();
        this.keep();
        this.onAnswer(stroke, answer, !this.waiting.length);
      } catch (error) {
        if (error.status === 400) { // the server will never take this one
          this.waiting.shift();
          this.keep();
          this.onAnswer(stroke, null, !this.waiting.length, error.message);
          continue;
        }
        this.onState("away", this.waiting.length, error.message);
        await new Promise((resolve) => setTimeout(resolve, 700));
      }
    }
    this.sending = false;
    this.onState("saved", 0);
  }
}

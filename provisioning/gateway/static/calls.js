// Calls of the gateway. A token is in the memory of this tab alone, and in a header: in no address and no cookie.

import { heed } from "./elements.js";

const TOKEN = "provisioning-token";

export const token = {
  given: () => sessionStorage.getItem(TOKEN),
  keep: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

// The gateway has said no, and why.
export class Declined extends Error {
  constructor(status, error) {
    super(error.message || `the gateway answers ${status}`);
    this.status = status;
    this.code = error.code || "";
    this.hint = error.hint || "";
    this.problems = (error.problems ?? []).map(({ message, hint }) => (hint ? `${message}: ${hint}` : message));
  }
}

// Nobody has answered.
export class Silent extends Error {}

function headers(more = {}) {
  const given = token.given();
  return given ? { Authorization: `Bearer ${given}`, ...more } : more;
}

async function fetched(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Silent("the gateway does not answer");
  }
  heed(response.headers.get("Date"));
  if (response.ok) return response;
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // no answer of the gateway's form: its status has to do
  }
  throw new Declined(response.status, said);
}

// `data` of an answer.
export async function get(path, signal) {
  const response = await fetched(path, { headers: headers(), signal });
  return whole(response, async () => (await response.json()).data);
}

// The bytes of a log, and the headers that came with them.
export async function bytes(path, signal) {
  const response = await fetched(path, { headers: headers(), signal });
  return whole(response, async () => [await response.arrayBuffer(), response.headers]);
}

export async function post(path, body) {
  const options = {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
  };
  const response = await fetched(path, options);
  return whole(response, async () => (await response.json()).data);
}

async function whole(response, read) {
  try {
    return await read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Silent("the gateway broke off its answer");
  }
}

// An SVG as a document: the browser's XML parser makes it, no text of ours becomes markup.
export function picture(path, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    const leave = () => request.abort();
    request.open("GET", path);
    request.responseType = "document";
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.onreadystatechange = () => {
      const { readyState, status } = request;
      if (readyState === XMLHttpRequest.HEADERS_RECEIVED && status !== 200) request.responseType = "json"; // an error
    };
    request.onload = () => {
      const { status, response } = request;
      const found = status === 200 ? response?.documentElement : null;
      if (found?.localName === "svg") resolve([found, request.getResponseHeader("Note")]);
      else reject(new Declined(status, response?.error ?? {}));
    };
    request.onerror = () => reject(new Silent("the gateway does not answer"));
    request.onabort = () => reject(new DOMException("left", "AbortError"));
    request.onloadend = () => signal.removeEventListener("abort", leave); // the signal lives on, the picture need not
    signal.addEventListener("abort", leave);
    request.send();
  });
}

// The server-sent events of a path, {event, data} one by one; the first is "open". EventSource sends no headers.
export async function* events(path, signal) {
  const response = await fetched(path, { headers: headers({ Accept: "text/event-stream" }), signal });
  yield { event: "open", data: "" };
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await whole(response, () => reader.read());
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      yield* parts.map(parsed).filter(({ data }) => data);
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever has heard enough keeps no connection
  }
}

function parsed(part) {
  const found = { event: "", data: "" };
  for (const line of part.split("\n")) {
    const colon = line.indexOf(": ");
    const name = line.slice(0, colon);
    if (colon > 0 && name in found) found[name] += line.slice(colon + 2);
  }
  return found;
}

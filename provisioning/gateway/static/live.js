// Looks again and again: when woken, or after a while; rarer where a look takes long, and not at all while unseen.

import { Silent } from "./calls.js";
import { el, fill } from "./elements.js";

const SHARE = 4; // a look may take a fifth of the time
const LONGEST = 15;

// Ends what sleeps: `now` for a person, `soon` for what happens by itself, which may be often. It is remembered.
export class Wake extends EventTarget {
  pending = "";

  now() {
    this.pending = "now";
    this.dispatchEvent(new Event("now"));
  }

  soon() {
    this.pending ||= "soon";
    this.dispatchEvent(new Event("soon"));
  }
}

// Until one of these wakes it, or the signal, or for so long.
function sleep(seconds, signal, wake, names) {
  return new Promise((resolve) => {
    const timer = setTimeout(end, seconds * 1000);
    function end() {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      for (const name of names) wake.removeEventListener(name, end);
      resolve();
    }
    signal.addEventListener("abort", end);
    for (const name of names) wake.addEventListener(name, end);
    if (signal.aborted || names.includes(wake.pending)) end();
  });
}

function seen(signal) {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    function end() {
      document.removeEventListener("visibilitychange", end);
      signal.removeEventListener("abort", end);
      resolve();
    }
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end);
  });
}

// Where it is told whether the gateway answers.
export const connection = {
  show(text) {
    const place = document.getElementById("connection");
    if (place.textContent !== text) fill(place, text ? el("p", {}, text) : null);
  },
};

// Tell a reader who cannot see what has changed; `seen`: everybody, until something else is said.
export function said(text, { seen = false } = {}) {
  const place = document.getElementById("said");
  place.classList.toggle("unseen", !seen);
  fill(place, text);
}

// Calls `look` until the signal; it says after how many seconds again at the latest, or null for never. `wake` calls it
// sooner. Nobody answering is told, and tried again.
export async function watch(look, signal, wake = new Wake()) {
  let silent = 0,
    looked = false;
  while (!signal.aborted) {
    await seen(signal);
    if (signal.aborted) return;
    const begin = performance.now();
    wake.pending = "";
    try {
      const next = await look();
      if (next === null) return;
      silent = 0;
      looked = true;
      connection.show("");
      const least = Math.max(0.5, (SHARE * (performance.now() - begin)) / 1000);
      await sleep(least, signal, wake, ["now"]);
      if (wake.pending !== "now") await sleep(next - least, signal, wake, ["now", "soon"]);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Silent || (looked && error.status >= 500))) throw error;
      const shown = looked ? " What is shown is as it was." : "";
      connection.show(`Sorry: ${error.message}.${shown} It is asked again every few seconds.`);
      await sleep(Math.min(LONGEST, 2 ** silent), signal, wake, ["now"]);
      silent += 1;
    }
  }
}

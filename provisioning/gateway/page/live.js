// Looks again and again: when woken, or after a while; rarer where a look takes long, and not at all while unseen.

import { Silent } from "./calls.js";
import { el, fill } from "./elements.js";

const SHARE = 4; // a look may take a fifth of the time
const LONGEST = 15;

export function sleep(seconds, signal, wake) {
  return new Promise((resolve) => {
    const timer = setTimeout(end, seconds * 1000);
    function end() {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      wake?.removeEventListener("wake", end);
      resolve();
    }
    signal.addEventListener("abort", end);
    wake?.addEventListener("wake", end);
    if (signal.aborted) end();
  });
}

function seen(signal) {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    document.addEventListener("visibilitychange", resolve, { once: true, signal });
    signal.addEventListener("abort", resolve);
  });
}

// Where it is told whether the gateway answers.
export const connection = {
  show(text) {
    const place = document.getElementById("connection");
    if (place.textContent !== text) fill(place, text ? el("p", {}, text) : null);
  },
};

// Calls `look` until the signal; it says after how many seconds again at the latest, or null for never. An event "wake"
// on `wake` calls it sooner. Nobody answering is told, and tried again.
export async function watch(look, signal, wake) {
  let silent = 0, looked = false;
  while (!signal.aborted) {
    await seen(signal);
    if (signal.aborted) return;
    const begin = performance.now();
    let next;
    try {
      next = await look();
      silent = 0;
      looked = true;
      connection.show("");
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Silent || (looked && error.status >= 500))) throw error;
      silent += 1;
      next = Math.min(LONGEST, 2 ** (silent - 1));
      const shown = looked ? " What is shown is as it was." : "";
      connection.show(`Sorry: ${error.message}.${shown} It is asked again every few seconds.`);
      await sleep(next, signal);
      continue;
    }
    if (next === null) return;
    const least = (SHARE * (performance.now() - begin)) / 1000;
    await sleep(Math.max(0.5, least), signal);
    if (wake?.pending) {
      wake.pending = false;
      continue;
    }
    await sleep(Math.max(0, next - least), signal, wake);
    if (wake) wake.pending = false;
  }
}

// Something that can be woken, and remembers it while nobody sleeps.
export class Wake extends EventTarget {
  pending = false;

  now() {
    this.pending = true;
    this.dispatchEvent(new Event("wake"));
  }
}

// Elements, made so that text cannot become markup: a child that is no node is a text.

import { MARKS, WAITING } from "./states.js";

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "g", "title", "desc", "path", "rect", "line", "text"]);
const LOOKS = new Set([
  "aria-labelledby",
  "class",
  "d",
  "height",
  "id",
  "role",
  "rx",
  "viewBox",
  "width",
  "x",
  "x1",
  "x2",
  "y",
  "y1",
  "y2",
]);
const UNSAFE = new RegExp(
  "(?![\\n\\t])[\\u0000-\\u001f\\u007f-\\u009f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff" +
    "\\ufff9-\\ufffb\\ud800-\\udfff\\u{e0000}-\\u{e007f}]",
  "gu",
);

// The text; what would hide, turn it around or be obeyed by a terminal is written out, as the command line does.
export function safe(text) {
  return String(text).replace(UNSAFE, (found) => {
    const code = found.codePointAt(0);
    const named = { 13: "\\r" }[code];
    if (named) return named;
    if (code < 256) return "\\x" + code.toString(16).padStart(2, "0");
    return code < 65536 ? "\\u" + code.toString(16).padStart(4, "0") : "\\U" + code.toString(16).padStart(8, "0");
  });
}

// An element. An attribute of null or false is left out, one of true has no value; `on` listens: {on: {click: f}}.
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [event, listen] of Object.entries(value)) made.addEventListener(event, listen);
    else if (value !== null && value !== undefined && value !== false)
      made.setAttribute(key, value === true ? "" : value);
  }
  put(made, children);
  return made;
}

function put(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : safe(child));
  }
}

// An element of a picture.
export function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  put(made, children);
  return made;
}

// Put these in the place of all children.
export function fill(parent, ...children) {
  parent.replaceChildren();
  put(parent, children);
}

// A picture that came as a document of its own: what pictures are made of is copied, and nothing else.
export function drawn(source) {
  if (!DRAWN.has(source.localName)) return document.createTextNode("");
  const looks = [...source.attributes].filter(({ name }) => LOOKS.has(name)).map(({ name, value }) => [name, value]);
  const made = svg(source.localName, Object.fromEntries(looks));
  for (const child of source.childNodes) {
    if (child.nodeType === Node.ELEMENT_NODE) made.append(drawn(child));
    else if (child.nodeType === Node.TEXT_NODE) made.append(safe(child.data));
  }
  return made;
}

// Make the children be `items`, {key, mark, make}: what has the mark that it had stays, and so does the focus.
export function renew(parent, items) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const now = items.map(({ key, mark, make }) => {
    const old = before.get(key);
    if (old && old.dataset.mark === mark) return old;
    const made = make();
    made.dataset.key = key;
    made.dataset.mark = mark;
    return made;
  });
  if (now.length !== parent.children.length || now.some((child, i) => parent.children[i] !== child)) {
    parent.replaceChildren(...now);
  }
  if (focused && !parent.contains(document.activeElement)) {
    const there = [...parent.querySelectorAll("[data-focus]")].find((each) => each.dataset.focus === focused);
    (there ?? document.querySelector("h1")).focus(); // where that has gone, at the beginning
  }
}

const words = (state) => state.replaceAll("_", " ");
const mark = (state) => el("span", { "aria-hidden": "true" }, MARKS[state] ?? "●");

export function badge(state) {
  return el("span", { class: `badge ${state}` }, mark(state), words(state));
}

export function shown(state) {
  return el("span", { class: `state ${state}` }, mark(state), ` ${words(state)}`);
}

const REASONS = 5; // of one task

// Why a task does not start yet, as the command line says it; nothing of one that does not wait.
export function waiting({ waiting_for: reasons, next_attempt_at: next, held_by: holders = [] }) {
  const at = next ? when(next).textContent : "";
  const held = holders.length ? `, held by ${holders.slice(0, 3).join(", ")}` : "";
  const said = reasons.slice(0, REASONS).map((reason) => {
    const [kind, what] = reason.includes(":") ? reason.split(/:(.*)/s) : [reason, ""];
    const parts = { what, at, held_by: held };
    return Object.hasOwn(WAITING, kind) ? WAITING[kind].replace(/\{(\w+)\}/g, (_, name) => parts[name]) : reason;
  });
  const left = reasons.length - REASONS;
  return [...said, ...(left > 0 ? [`and ${left} more`] : [])].join("; ");
}

// What may be wider than the page, or higher than the screen: reached without a mouse too.
export function scrolling(label, kind, ...children) {
  return el("div", { class: kind, tabindex: "0", role: "region", "aria-label": label }, children);
}

// A table, of which a heading says what it is; `heads` are [text, class]. Its body is the second part of the answer.
export function table(caption, heads) {
  const body = el("tbody");
  const head = heads.map(([text, kind]) => el("th", { scope: "col", class: kind || null }, text));
  const made = el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), body);
  return [scrolling(`Table: ${caption}`, "scroll", made), body];
}

// Times

const clock = { ahead: 0 };

// What a header Date says: the clock of the gateway is the one that counts.
export function heed(date) {
  const ahead = Date.parse(date ?? "") - Date.now();
  if (!Number.isNaN(ahead)) clock.ahead = Math.abs(ahead) > 2000 ? ahead : 0;
}

// Seconds as people say them: 0.4s, 12s, 3m20s, 2h05m, 4d03h.
export function duration(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)}s`;
  const minutes = Math.floor(seconds / 60),
    hours = Math.floor(minutes / 60);
  const two = (number) => String(number).padStart(2, "0");
  if (hours >= 24) return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
  if (hours) return `${hours}h${two(minutes % 60)}m`;
  const rest = Math.floor(seconds) % 60;
  return minutes ? `${minutes}m${two(rest)}s` : `${rest}s`;
}

const since = (from, to) => ((to ? Date.parse(to) : Date.now() + clock.ahead) - Date.parse(from)) / 1000;

// How long something took; of what goes on it is moved on by `tick`.
export function took(from, to) {
  if (!from) return "";
  return to ? duration(since(from, to)) : el("span", { "data-since": from }, Math.floor(since(from)) + "s");
}

// Move on all that goes on.
export function tick() {
  for (const each of document.querySelectorAll("[data-since]")) {
    const text = duration(Math.max(10, since(each.dataset.since)));
    each.textContent = since(each.dataset.since) < 10 ? `${Math.max(0, Math.floor(since(each.dataset.since)))}s` : text;
  }
}

// An instant in local time: the date too where it is not today.
export function when(at) {
  if (!at) return "";
  const found = new Date(at),
    today = found.toDateString() === new Date().toDateString();
  const two = (number) => String(number).padStart(2, "0");
  const time = [found.getHours(), found.getMinutes(), found.getSeconds()].map(two).join(":");
  const date = [found.getFullYear(), two(found.getMonth() + 1), two(found.getDate())].join("-");
  return el("time", { datetime: at, title: at }, today ? time : `${date} ${time.slice(0, 5)}`);
}

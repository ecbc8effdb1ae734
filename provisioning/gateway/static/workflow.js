// One workflow while it goes on: its facts, what went wrong, graph, timeline and tasks.

import { again, buttons } from "./asking.js";
import { Declined, Silent, events, get, picture } from "./calls.js";
import { badge, drawn, el, fill, renew, scrolling, shown, table, took, when } from "./elements.js";
import { SOME, parts } from "./list.js";
import { watch } from "./live.js";
import { TASK_STATES, WORST } from "./states.js";

const OVER = ["succeeded", "failed", "cancelled", "rolled_back", "rejected", "damaged"];
const FAILURES = 20;
const SECONDS = 10; // without an event, in case one was lost
const AWAITED = 20; // so many times it is looked each second whether what was asked is done
const NOTHING = 404;
const SVG = "http://www.w3.org/2000/svg";

export const title = ([id]) => `Workflow ${id}`;

export async function view(main, [id], { query, wake, signal, said }) {
  const place = frame(main, id, signal);
  let state = "", whole = "", following = false, awaited = 0;
  await watch(async () => {
    const page = await get(`workflows/${id}`, signal);
    if (state && state !== page.state) {
      said(`${page.name} is ${page.state.replaceAll("_", " ")}`);
      awaited = 0;
    }
    state = page.state;
    head(place, page, (told) => {
      said(told.queued ? `Asked: ${told.asked}. It is done as soon as an orchestrator looks.` : `Done: ${told.asked}.`);
      whole = "";
      awaited = AWAITED;
      wake.now();
    });
    place.select.value = query.get("state") ?? "";
    const now = JSON.stringify([query.toString(), page.state, page.counts, page.tasks.map((task) => [task.task_id, task.attempts.length])]);
    if (now !== whole || page.state === "running") {
      whole = ""; // until all of it has come
      await Promise.all([tasks(place, page, query, signal), pictures(place, id, signal)]);
      whole = now;
    }
    const over = OVER.includes(state);
    if (!over && !following) {
      following = true;
      follow(id, signal, wake).finally(() => { following = false; });
    }
    if (awaited-- > 0) return 1; // what was asked is done soon, also where no event tells of it
    return state === "running" ? SECONDS / 2 : SECONDS;
  }, signal, wake);
}

// Wakes when something happens, until the stream ends: then there is a look, and the stream is taken up after that.
async function follow(id, signal, wake) {
  const hidden = new AbortController();
  const hide = () => { if (document.hidden) hidden.abort(); }; // a browser has few connections
  document.addEventListener("visibilitychange", hide);
  try {
    for await (const event of events(`workflows/${id}/events?from=now`, AbortSignal.any([signal, hidden.signal]))) {
      wake.soon();
      if (event.event === "end") return;
    }
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof Silent || error instanceof Declined)) throw error;
  } finally {
    document.removeEventListener("visibilitychange", hide);
  }
  wake.soon();
}

function frame(main, id, signal) {
  const place = Object.fromEntries(["h1", "dl"].map((name) => [name, el(name, name === "h1" ? { tabindex: "-1" } : {})]));
  const section = (name, text, ...content) => {
    place[name] = el("section", { "aria-labelledby": `${name}-title` }, el("h2", { id: `${name}-title` }, text), content);
    return place[name];
  };
  const holder = (name) => (place[`${name}-content`] = el("div"));
  place.badge = el("span");
  place.asks = el("div", { class: "asks", role: "group", "aria-label": "What may be asked of it" });
  fill(main,
    el("nav", { "aria-label": "Back" }, el("a", { href: "#/" }, "← All workflows")),
    el("div", { class: "title" }, place.h1, place.badge),
    place.asks, place.dl,
    section("counts", "Tasks by state", holder("counts")),
    section("failures", "Failures", holder("failures")),
    section("graph", "Graph", holder("graph")),
    section("timeline", "Timeline", holder("timeline")),
    section("tasks", "Tasks", holder("tasks")),
    section("requests", "Requests", holder("requests")));
  place.failures.classList.add("alarm");
  for (const name of ["failures", "graph", "timeline", "requests"]) place[name].hidden = true;
  const options = ["", ...TASK_STATES].map((state) =>
    el("option", { value: state }, state || "any"));
  const select = (place.select = el("select", { id: "task-state" }, options));
  select.addEventListener("change", () => {
    location.hash = select.value ? `#/workflows/${id}?state=${select.value}` : `#/workflows/${id}`;
  }, { signal });
  const [box, body] = table("Tasks", [["task"], ["state"], ["operation", "wide-only"], ["attempts", "n wide-only"], ["time", "n"]]);
  place.body = body;
  place.parts = el("nav", { "aria-label": "Parts of the tasks", class: "parts" });
  place.none = el("p", { class: "soft" });
  fill(place["tasks-content"], el("p", { class: "filters" }, el("label", { for: "task-state" }, "State"), select), box,
    place.none, place.parts);
  return place;
}

function head(place, page, asked) {
  if (place.h1.textContent !== page.name) fill(place.h1, page.name || page.workflow_id);
  document.title = `${page.name}: ${page.state.replaceAll("_", " ")}`;
  const facts = [
    ["Workflow", el("code", {}, page.workflow_id)],
    ["Infra", page.infra],
    ["Submitted", [when(page.submitted_at), ` by ${page.operator} (${page.door})`]],
    ["Not before", when(page.not_before)],
    ["Started", when(page.started_at)],
    ["Ended", when(page.ended_at)],
    ["Took", took(page.started_at, page.ended_at)],
    ["Priority", `${page.priority}`],
    ["Reason", page.reason],
  ];
  renew(place.dl, facts.filter(([, value]) => value).map(([name, value]) => ({
    key: name,
    mark: JSON.stringify([page.workflow_id, page.state, page.reason, page.started_at, page.ended_at]),
    make: () => el("div", {}, el("dt", {}, name), el("dd", {}, value)),
  })));
  fill(place.badge, badge(page.state));
  renew(place.asks, buttons(page, asked));
  place.asks.hidden = !place.asks.children.length;
  counts(place["counts-content"], page);
  failures(place, page, asked);
  requests(place, page);
}

function counts(content, page) {
  const found = page.counts;
  const order = [...new Set([...WORST.toReversed(), ...Object.keys(found)])].filter((state) => found[state]);
  const total = order.reduce((sum, state) => sum + found[state], 0) || 1;
  const bar = document.createElementNS(SVG, "svg");
  let at = 0;
  for (const [name, value] of [["viewBox", "0 0 100 1"], ["preserveAspectRatio", "none"], ["class", "counts"], ["aria-hidden", "true"]]) {
    bar.setAttribute(name, value);
  }
  for (const state of order) {
    const width = (100 * found[state]) / total;
    const part = document.createElementNS(SVG, "rect");
    for (const [name, value] of [["x", at], ["y", 0], ["width", width], ["height", 1], ["class", state]]) part.setAttribute(name, value);
    bar.append(part);
    at += width;
  }
  renew(content, [{
    key: "bar",
    mark: JSON.stringify(found),
    make: () => el("div", {}, bar, el("ul", { class: "legend" }, order.map((state) =>
      el("li", {}, `${found[state]} `, el("a", { href: `#/workflows/${page.workflow_id}?state=${state}`, "data-focus": state }, shown(state)))))),
  }]);
}

function failures(place, page, asked) {
  const wrong = page.tasks.filter((task) => task.state === "failed" || page.held.includes(task.task_id));
  place.failures.hidden = !wrong.length;
  const items = wrong.slice(0, FAILURES).map((task) => {
    const held = page.held.includes(task.task_id);
    return { key: task.task_id, mark: JSON.stringify([task, held, page.state]), make: () => failure(page, task, held, asked) };
  });
  const left = wrong.length - FAILURES;
  const text = `And ${left} more: see the tasks that failed, below.`;
  if (left > 0) items.push({ key: "~more", mark: text, make: () => el("p", {}, text) });
  renew(place["failures-content"], items);
}

function failure(page, task, held, asked) {
  const last = task.attempts.at(-1), error = last?.error;
  const why = error ? `${error.msg}${error.code ? ` [${error.code}]` : ""}` : task.reason;
  return el("article", {},
    el("h3", {}, el("a", { href: `#/workflows/${page.workflow_id}/${task.task_id}`, "data-focus": `failed ${task.task_id}` }, task.task_id)),
    el("p", { class: "soft" }, last ? `Attempt ${last.attempt} of ${task.operation}` : task.operation),
    why ? el("p", {}, el("strong", {}, why)) : null,
    error?.help ? el("p", { class: "hint" }, error.help) : null,
    held ? el("p", {}, "It was interrupted, and whether it did its work is not known: look, then decide. ", again(page, task, asked)) : null);
}

function requests(place, page) {
  place.requests.hidden = !page.requests.length;
  renew(place["requests-content"], [{
    key: "requests",
    mark: JSON.stringify(page.requests),
    make: () => {
      const [box, body] = table("What people asked of it", [["when"], ["what"], ["who"], ["tasks"]]);
      body.append(...page.requests.map((each) => el("tr", {}, el("th", { scope: "row" }, when(each.at)), el("td", {}, each.verb),
        el("td", {}, each.operator), el("td", {}, (each.tasks ?? []).join(", ")))));
      return box;
    },
  }]);
}

async function pictures(place, id, signal) {
  await Promise.all([["graph", "The graph"], ["timeline", "The timeline"]].map(async ([name, label]) => {
    let found;
    try {
      found = await picture(`workflows/${id}/${name}`, signal);
    } catch (error) {
      if (!(error instanceof Declined) || error.status !== NOTHING) throw error;
      place[name].hidden = true; // nothing is known yet
      return;
    }
    const content = place[`${name}-content`], made = drawn(found[0]);
    if (content.children.length) content.querySelector("svg").replaceWith(made); // it stays scrolled as it was
    else fill(content, el("p", { class: "soft" }, found[1] ?? ""), scrolling(label, "picture", made));
    const first = place[name].hidden;
    place[name].hidden = false;
    if (first && name === "timeline") content.querySelector(".picture").scrollLeft = 10_000; // where it goes on
  }));
}

async function tasks(place, page, query, signal) {
  const offset = Number(query.get("offset")) || 0, state = query.get("state");
  const asked = new URLSearchParams({ workflow: page.workflow_id, limit: SOME, offset, ...(state ? { state } : {}) });
  const found = await get(`tasks?${asked}`, signal);
  renew(place.body, found.tasks.map((task) => ({
    key: task.task_id, mark: JSON.stringify(task), make: () => row(page.workflow_id, task),
  })));
  const none = state ? `No task is ${state} now.` : "Its tasks are not known yet.";
  fill(place.none, found.tasks.length ? null : none);
  place.body.closest("[role=region]").hidden = !found.tasks.length;
  renew(place.parts, parts(query, offset, found.more, `#/workflows/${page.workflow_id}`));
}

function row(id, task) {
  const first = task.attempts[0], last = task.attempts.at(-1);
  const waits = task.state === "pending" && task.waiting_for.length ? `waits for ${task.waiting_for.slice(0, 5).join(", ")}` : "";
  const why = last?.error?.msg && task.state !== "succeeded" ? last.error.msg : task.reason || waits;
  return el("tr", {},
    el("th", { scope: "row", class: "id" }, el("a", { href: `#/workflows/${id}/${task.task_id}`, "data-focus": task.task_id }, task.task_id)),
    el("td", {}, shown(task.state), why ? el("div", { class: "why short" }, why) : null),
    el("td", { class: "wide-only" }, task.operation),
    el("td", { class: "n wide-only" }, `${task.attempts.length}`),
    el("td", { class: "n" }, first ? took(first.started_at, last.ended_at ?? (task.state === "running" ? null : last.started_at)) : ""));
}

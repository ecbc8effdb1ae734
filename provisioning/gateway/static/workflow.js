// One workflow while it goes on: its facts, what went wrong, graph, timeline and tasks.

import { Declined, Silent, events, get, picture } from "./calls.js";
import { drawn, el, fill, renew, scrolling, shown, table, took, waiting } from "./elements.js";
import { head } from "./facts.js";
import { SOME, parts } from "./list.js";
import { said, watch } from "./live.js";
import { OVER, TASK_STATES } from "./states.js";

const SECONDS = 10; // without an event, in case one was lost
const AWAITED = 20; // so many times it is looked each second whether what was asked is done
const NOTHING = 404;

export const title = ([id]) => `Workflow ${id}`;

export async function view(main, [id], { query, wake, signal }) {
  const place = frame(main, id, signal);
  let state = "",
    whole = "",
    following = false,
    awaited = 0;
  await watch(
    async () => {
      const page = await get(`workflows/${id}`, signal);
      if (state && state !== page.state) {
        said(`${page.name} is ${page.state.replaceAll("_", " ")}`);
        awaited = 0;
      }
      state = page.state;
      head(place, page, () => {
        whole = "";
        awaited = AWAITED;
        wake.now();
      });
      place.select.value = query.get("state") ?? "";
      const now = JSON.stringify([
        query.toString(),
        page.state,
        page.counts,
        page.tasks.map((task) => [task.task_id, task.attempts.length]),
      ]);
      if (now !== whole || page.state === "running") {
        whole = ""; // until all of it has come
        await Promise.all([tasks(place, page, query, signal), pictures(place, id, signal)]);
        whole = now;
      }
      const over = OVER.includes(state);
      if (!over && !following) {
        following = true;
        follow(id, signal, wake).finally(() => {
          following = false;
        });
      }
      if (awaited-- > 0) return 1; // what was asked is done soon, also where no event tells of it
      return state === "running" ? SECONDS / 2 : SECONDS;
    },
    signal,
    wake,
  );
}

// Wakes when something happens, until the stream ends: then there is a look, and the stream is taken up after that.
async function follow(id, signal, wake) {
  const hidden = new AbortController();
  const hide = () => {
    if (document.hidden) hidden.abort();
  }; // a browser has few connections
  document.addEventListener("visibilitychange", hide);
  hide(); // it may be so already
  try {
    for await (const event of events(`workflows/${id}/events?from=now`, AbortSignal.any([signal, hidden.signal]))) {
      wake.soon();
      if (event.event === "end") return;
    }
  } catch (error) {
    if (error instanceof Declined) return; // a look says why, and goes on without a stream
    if (error.name !== "AbortError" && !(error instanceof Silent)) throw error;
  } finally {
    document.removeEventListener("visibilitychange", hide);
  }
  wake.soon();
}

function frame(main, id, signal) {
  const place = Object.fromEntries(
    ["h1", "dl"].map((name) => [name, el(name, name === "h1" ? { tabindex: "-1" } : {})]),
  );
  const section = (name, text, ...content) => {
    place[name] = el(
      "section",
      { "aria-labelledby": `${name}-title` },
      el("h2", { id: `${name}-title` }, text),
      content,
    );
    return place[name];
  };
  const holder = (name) => (place[`${name}-content`] = el("div"));
  place.badge = el("span");
  place.asks = el("div", { class: "asks", role: "group", "aria-label": "What may be asked of it" });
  fill(
    main,
    el("nav", { "aria-label": "Back" }, el("a", { href: "#/" }, "← All workflows")),
    el("div", { class: "title" }, place.h1, place.badge),
    place.asks,
    place.dl,
    section("counts", "Tasks by state", holder("counts")),
    section("failures", "Failures", holder("failures")),
    section("graph", "Graph", holder("graph")),
    section("timeline", "Timeline", holder("timeline")),
    section("tasks", "Tasks", holder("tasks")),
    section("requests", "Requests", holder("requests")),
  );
  place.failures.classList.add("alarm");
  for (const name of ["failures", "graph", "timeline", "requests"]) place[name].hidden = true;
  const options = ["", ...TASK_STATES].map((state) => el("option", { value: state }, state || "any"));
  const select = (place.select = el("select", { id: "task-state" }, options));
  select.addEventListener(
    "change",
    () => {
      location.hash = select.value ? `#/workflows/${id}?state=${select.value}` : `#/workflows/${id}`;
    },
    { signal },
  );
  const [box, body] = table("Tasks", [
    ["task"],
    ["state"],
    ["operation", "wide-only"],
    ["attempts", "n wide-only"],
    ["time", "n"],
  ]);
  place.body = body;
  place.parts = el("nav", { "aria-label": "Parts of the tasks", class: "parts" });
  place.none = el("p", { class: "soft" });
  fill(
    place["tasks-content"],
    el("p", { class: "filters" }, el("label", { for: "task-state" }, "State"), select),
    box,
    place.none,
    place.parts,
  );
  return place;
}

async function pictures(place, id, signal) {
  await Promise.all(
    [
      ["graph", "The graph"],
      ["timeline", "The timeline"],
    ].map(async ([name, label]) => {
      let found;
      try {
        found = await picture(`workflows/${id}/${name}`, signal);
      } catch (error) {
        if (!(error instanceof Declined) || error.status !== NOTHING) throw error;
        place[name].hidden = true; // nothing is known yet
        return;
      }
      const content = place[`${name}-content`],
        made = drawn(found[0]);
      if (content.children.length)
        content.querySelector("svg").replaceWith(made); // it stays scrolled as it was
      else fill(content, el("p", { class: "soft" }, found[1] ?? ""), scrolling(label, "picture", made));
      const first = place[name].hidden;
      place[name].hidden = false;
      if (first && name === "timeline") content.querySelector(".picture").scrollLeft = 10_000; // where it goes on
    }),
  );
}

async function tasks(place, page, query, signal) {
  const offset = Number(query.get("offset")) || 0,
    state = query.get("state");
  const asked = new URLSearchParams({ workflow: page.workflow_id, limit: SOME, offset, ...(state ? { state } : {}) });
  const found = await get(`tasks?${asked}`, signal);
  renew(
    place.body,
    found.tasks.map((task) => ({
      key: task.task_id,
      mark: JSON.stringify(task),
      make: () => row(page.workflow_id, task),
    })),
  );
  const none = state ? `No task is ${state} now.` : "Its tasks are not known yet.";
  fill(place.none, found.tasks.length ? null : none);
  place.body.closest("[role=region]").hidden = !found.tasks.length;
  renew(place.parts, parts(query, offset, found.more, `#/workflows/${page.workflow_id}`));
}

function row(id, task) {
  const first = task.attempts[0],
    last = task.attempts.at(-1);
  const why = last?.error?.msg && task.state !== "succeeded" ? last.error.msg : task.reason || waiting(task);
  return el(
    "tr",
    {},
    el(
      "th",
      { scope: "row", class: "id" },
      el("a", { href: `#/workflows/${id}/${task.task_id}`, "data-focus": task.task_id }, task.task_id),
    ),
    el("td", {}, shown(task.state), why ? el("div", { class: "why short" }, why) : null),
    el("td", { class: "wide-only" }, task.operation),
    el("td", { class: "n wide-only" }, `${task.attempts.length}`),
    el(
      "td",
      { class: "n" },
      first ? took(first.started_at, last.ended_at ?? (task.state === "running" ? null : last.started_at)) : "",
    ),
  );
}

// All workflows that are the caller's matter, a part at a time, and the filters.

import { get } from "./calls.js";
import { el, fill, renew, shown, table, took, when } from "./elements.js";
import { said, watch } from "./live.js";
import { LARGE_TASKS, MARKS, OVER, WORST, WORKFLOW_STATES } from "./states.js";

const SOME = 50;
const SECONDS = 3;
const KEYS = ["state", "name", "operator", "infra"];

export const title = () => "Workflows";

export async function view(main, _, { query, wake, signal }) {
  const fields = filters(query, signal, () => wake.now());
  const [box, body] = table("Workflows, the newest first", [
    ["workflow"],
    ["state"],
    ["tasks"],
    ["submitted", "wide-only"],
    ["time", "n wide-only"],
  ]);
  const none = el("p", { class: "soft" });
  const pages = el("nav", { "aria-label": "Parts of the list", class: "parts" });
  fill(
    main,
    el("h1", { tabindex: "-1" }, "Workflows"),
    fields,
    el("section", { "aria-label": "List" }, box, none, pages),
  );
  let before = null;
  await watch(
    async () => {
      for (const key of KEYS) {
        const field = fields.elements[key]; // an address of before may have come back
        if (field !== document.activeElement) field.value = query.get(key) ?? "";
      }
      const offset = Number(query.get("offset")) || 0;
      const asked = new URLSearchParams({ limit: SOME, offset });
      for (const key of KEYS) if (query.get(key)) asked.append(key, query.get(key));
      const page = await get(`workflows?${asked}`, signal);
      renew(
        body,
        page.workflows.map((row) => ({ key: row.workflow_id, mark: JSON.stringify(row), make: () => line(row) })),
      );
      box.hidden = !page.workflows.length;
      const filtered = KEYS.some((key) => query.get(key));
      fill(none, page.workflows.length ? null : filtered ? "No workflow is like that." : "There is no workflow yet.");
      renew(pages, parts(query, offset, page.more));
      const count = `${page.workflows.length}${page.more ? " or more" : ""} workflows`;
      if (before !== null && before !== asked.toString()) said(count);
      before = asked.toString();
      return SECONDS;
    },
    signal,
    wake,
  );
}

function filters(query, signal, changed) {
  const options = ["", ...WORKFLOW_STATES].map((state) =>
    el(
      "option",
      { value: state, selected: state === (query.get("state") ?? "") },
      state ? state.replaceAll("_", " ") : "any",
    ),
  );
  const state = el("select", { id: "state", name: "state" }, options);
  const field = (name, label, hint) =>
    el(
      "p",
      {},
      el("label", { for: name }, label),
      el("input", {
        id: name,
        name,
        type: "search",
        value: query.get(name),
        maxlength: 128,
        autocomplete: "off",
        spellcheck: "false",
        placeholder: hint,
      }),
    );
  const form = el(
    "form",
    { class: "filters", role: "search", "aria-label": "Filter" },
    el("p", {}, el("label", { for: "state" }, "State"), state),
    field("name", "Name or workflow_id", "part of it"),
    field("operator", "Operator", "exactly"),
    field("infra", "Infra", "exactly"),
  );
  let timer = 0;
  const take = () => {
    clearTimeout(timer);
    query.delete("offset");
    for (const key of KEYS) {
      const value = form.elements[key].value.trim();
      if (value) query.set(key, value);
      else query.delete(key);
    }
    history.replaceState(null, "", query.size ? `#/?${query}` : "#/");
    changed();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take();
  });
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(take, 300);
  });
  signal.addEventListener("abort", () => clearTimeout(timer));
  return form;
}

function line(row) {
  const address = `#/workflows/${row.workflow_id}`;
  // Of what goes on a list knows what was when it began, unless it is so large that there is a summary.
  const tallied = OVER.includes(row.state) || row.state === "queued" || row.tasks > LARGE_TASKS;
  const about = [row.operator ? `by ${row.operator}` : "", row.infra ? `in ${row.infra}` : ""]
    .filter(Boolean)
    .join(" ");
  return el(
    "tr",
    {},
    el(
      "th",
      { scope: "row", class: "id" },
      el("a", { href: address, "data-focus": row.workflow_id }, row.name || row.workflow_id),
      el("div", { class: "why" }, el("code", { class: "wide-only" }, row.workflow_id), about ? ` ${about}` : ""),
    ),
    el("td", {}, shown(row.state), row.reason ? el("div", { class: "why short" }, row.reason) : null),
    el(
      "td",
      {},
      el("div", { class: "tallies" }, tallied ? tallies(row.counts ?? {}) : row.tasks ? `${row.tasks} tasks` : ""),
    ),
    el("td", { class: "wide-only" }, when(row.submitted_at)),
    el("td", { class: "n wide-only" }, took(row.started_at, row.ended_at)),
  );
}

// How many tasks are in which state, the worst first.
export function tallies(counts) {
  const order = [...new Set([...WORST, ...Object.keys(counts)])].filter((state) => counts[state]);
  return order.map((state) =>
    el(
      "span",
      { class: `tally ${state}` },
      el("span", { "aria-hidden": "true" }, MARKS[state] ?? "●"),
      `${counts[state]}`,
      el("span", { class: "unseen" }, ` ${state}`),
      " ",
    ),
  );
}

// Links to the part before and the part behind.
export function parts(query, offset, more, address = "#/") {
  const link = (to, text, key) => {
    const there = new URLSearchParams(query);
    if (to) there.set("offset", to);
    else there.delete("offset");
    const href = there.size ? `${address}?${there}` : address;
    return { key, mark: href, make: () => el("a", { href, "data-focus": key }, text) };
  };
  const found = [];
  if (offset) found.push(link(Math.max(0, offset - SOME), "← The part before", "before"));
  if (more) found.push(link(offset + SOME, "The next part →", "next"));
  return found;
}

export { SOME };

// What is said of a workflow above its tasks: facts, what may be asked of it, counts, failures, requests.

import { again, buttons } from "./asking.js";
import { badge, el, fill, renew, shown, svg, table, took, when } from "./elements.js";
import { WORST } from "./states.js";

const FAILURES = 20;

// Show all that is known of it without its tasks; `asked` is called after something was asked of it.
export function head(place, page, asked) {
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
  renew(
    place.dl,
    facts
      .filter(([, value]) => value)
      .map(([name, value]) => ({
        key: name,
        mark: JSON.stringify([page.workflow_id, page.state, page.reason, page.started_at, page.ended_at]),
        make: () => el("div", {}, el("dt", {}, name), el("dd", {}, value)),
      })),
  );
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
  let at = 0;
  const rects = order.map((state) => {
    const width = (100 * found[state]) / total;
    at += width;
    return svg("rect", { x: at - width, y: 0, width, height: 1, class: state });
  });
  const look = { viewBox: "0 0 100 1", preserveAspectRatio: "none", class: "counts", "aria-hidden": "true" };
  renew(content, [
    {
      key: "bar",
      mark: JSON.stringify(found),
      make: () =>
        el(
          "div",
          {},
          svg("svg", look, rects),
          el(
            "ul",
            { class: "legend" },
            order.map((state) =>
              el(
                "li",
                {},
                `${found[state]} `,
                el("a", { href: `#/workflows/${page.workflow_id}?state=${state}`, "data-focus": state }, shown(state)),
              ),
            ),
          ),
        ),
    },
  ]);
}

function failures(place, page, asked) {
  const wrong = page.tasks.filter((task) => task.state === "failed" || page.held.includes(task.task_id));
  place.failures.hidden = !wrong.length;
  const items = wrong.slice(0, FAILURES).map((task) => {
    const held = page.held.includes(task.task_id);
    return {
      key: task.task_id,
      mark: JSON.stringify([task, held, page.state]),
      make: () => failure(page, task, held, asked),
    };
  });
  const left = wrong.length - FAILURES;
  const text = `And ${left} more: see the tasks that failed, below.`;
  if (left > 0) items.push({ key: "~more", mark: text, make: () => el("p", {}, text) });
  renew(place["failures-content"], items);
}

function failure(page, task, held, asked) {
  const last = task.attempts.at(-1),
    error = last?.error;
  const why = error ? `${error.msg}${error.code ? ` [${error.code}]` : ""}` : task.reason;
  return el(
    "article",
    {},
    el(
      "h3",
      {},
      el(
        "a",
        { href: `#/workflows/${page.workflow_id}/${task.task_id}`, "data-focus": `failed ${task.task_id}` },
        task.task_id,
      ),
    ),
    el("p", { class: "soft" }, last ? `Attempt ${last.attempt} of ${task.operation}` : task.operation),
    why ? el("p", {}, el("strong", {}, why)) : null,
    error?.help ? el("p", { class: "hint" }, error.help) : null,
    held
      ? el(
          "p",
          {},
          "It was interrupted, and whether it did its work is not known: look, then decide. ",
          again(page, task, asked),
        )
      : null,
  );
}

function requests(place, page) {
  place.requests.hidden = !page.requests.length;
  renew(place["requests-content"], [
    {
      key: "requests",
      mark: JSON.stringify(page.requests),
      make: () => {
        const [box, body] = table("What people asked of it", [["when"], ["what"], ["who"], ["tasks"]]);
        body.append(
          ...page.requests.map((each) =>
            el(
              "tr",
              {},
              el("th", { scope: "row" }, when(each.at)),
              el("td", {}, each.verb),
              el("td", {}, each.operator),
              el("td", {}, (each.tasks ?? []).join(", ")),
            ),
          ),
        );
        return box;
      },
    },
  ]);
}

// One task: its attempts, what it returned, and what it prints while it prints it.

import { again } from "./asking.js";
import { Declined, bytes, get } from "./calls.js";
import { badge, el, fill, renew, safe, scrolling, table, took, waiting, when } from "./elements.js";
import { said, watch } from "./live.js";
import { ENDED, LOG_BYTES } from "./states.js";

const LINES = 500;
const PARTS = 16; // of a log that has printed more than one answer holds, in one look
const MOST = 400_000; // characters of a log on the page: what came first goes first

export const title = ([id, task]) => `Task ${task} of ${id}`;

export async function view(main, [id, name], { query, wake, signal }) {
  const h1 = el("h1", { tabindex: "-1" }, name),
    state = el("span"),
    facts = el("dl"),
    about = el("div"),
    asks = el("p", { class: "asks" });
  const [box, body] = table("Attempts", [
    ["attempt"],
    ["outcome"],
    ["started", "wide-only"],
    ["took", "n"],
    ["exit code", "n wide-only"],
    ["log"],
  ]);
  const attempts = el(
    "section",
    { "aria-labelledby": "attempts-title" },
    el("h2", { id: "attempts-title" }, "Attempts"),
    box,
  );
  const result = el("section", { "aria-labelledby": "result-title", hidden: true });
  const log = new Log(id, name);
  fill(
    main,
    el("nav", { "aria-label": "Back" }, el("a", { href: `#/workflows/${id}` }, "← The workflow")),
    el("div", { class: "title" }, h1, state),
    asks,
    facts,
    about,
    log.section,
    attempts,
    result,
  );
  let before = "",
    kept = "";
  await watch(
    async () => {
      const task = await get(`tasks/${id}.${name}`, signal);
      const workflow = await get(`workflows/${id}`, signal);
      if (before && before !== task.state) said(`Task ${name} is ${task.state}`);
      before = task.state;
      document.title = `${name}: ${task.state}`;
      fill(state, badge(task.state));
      const first = task.attempts[0],
        last = task.attempts.at(-1),
        running = task.state === "running";
      if (JSON.stringify([task, workflow.state]) !== kept) {
        kept = JSON.stringify([task, workflow.state]);
        const known = [
          ["Operation", task.operation],
          ["Workflow", `${workflow.name} (${workflow.state})`],
          ["Started", when(first?.started_at)],
          ["Took", first ? took(first.started_at, running ? null : last.ended_at) : ""],
          ["Why not yet", waiting(task)],
          ["Reason", last?.error ? "" : task.reason],
        ];
        fill(
          facts,
          known
            .filter(([, value]) => value)
            .map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value))),
        );
        fill(about, last?.error && task.state !== "succeeded" ? wrong(last.error) : null);
        renew(
          body,
          task.attempts.toReversed().map((each) => ({
            key: `${each.attempt}`,
            mark: JSON.stringify(each),
            make: () => attempt(id, name, each),
          })),
        );
        attempts.hidden = !task.attempts.length;
        result.hidden = task.result === null || task.result === undefined;
        if (!result.hidden) {
          fill(
            result,
            el("h2", { id: "result-title" }, "Result"),
            el(
              "pre",
              { tabindex: "0", role: "region", "aria-label": "The result" },
              JSON.stringify(task.result, null, 2),
            ),
          );
        }
        const item = { key: "again", mark: workflow.state, make: () => again(workflow, task, () => wake.now()) };
        renew(asks, ENDED.includes(workflow.state) || workflow.held.includes(name) ? [item] : []);
        asks.hidden = !asks.children.length;
      }
      await log.look(Number(query.get("attempt")) || last?.attempt, signal);
      return running ? 1 : workflow.ended_at ? 30 : 3;
    },
    signal,
    wake,
  );
}

function wrong(error) {
  return el(
    "section",
    { class: "alarm", "aria-label": "What went wrong" },
    el("p", {}, el("strong", {}, error.msg), error.code ? el("span", { class: "soft" }, ` ${error.code}`) : null),
    error.help ? el("p", { class: "hint" }, error.help) : null,
  );
}

function attempt(id, name, each) {
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, `${each.attempt}`),
    el(
      "td",
      {},
      (each.outcome ?? "running").replaceAll("_", " "),
      each.error ? el("div", { class: "why short" }, each.error.msg) : null,
    ),
    el("td", { class: "wide-only" }, when(each.started_at)),
    el("td", { class: "n" }, took(each.started_at, each.ended_at)),
    el("td", { class: "n wide-only" }, each.exit_code === null ? "" : `${each.exit_code}`),
    el(
      "td",
      {},
      el(
        "a",
        { href: `#/workflows/${id}/${name}?attempt=${each.attempt}`, "data-focus": `log ${each.attempt}` },
        "Log",
        el("span", { class: "unseen" }, ` of attempt ${each.attempt}`),
      ),
    ),
  );
}

// The log of an attempt: its last lines, and then what comes.
class Log {
  constructor(id, name) {
    this.path = `workflows/${id}/logs/${name}`;
    this.command = `provisioning workflow logs ${id} ${name}`;
    this.attempt = 0;
    this.text = el("pre", { tabindex: "0", role: "region", "aria-label": "The log", class: "log" });
    this.heading = el("h2", { id: "log-title" }, "Log");
    this.note = el("p", { class: "soft" });
    this.section = el("section", { "aria-labelledby": "log-title" }, this.heading, this.note, this.text);
  }

  async look(attempt, signal) {
    if (!attempt) return this.#say("It has printed nothing: no attempt has begun.");
    for (let part = 0; part < PARTS && (await this.#read(attempt, signal)); part++);
  }

  // Read on; whether there is more by now.
  async #read(attempt, signal) {
    const fresh = attempt !== this.attempt;
    const from = fresh ? `lines=${LINES}` : `offset=${this.next}`;
    let data, headers;
    try {
      [data, headers] = await bytes(`${this.path}?attempt=${attempt}&${from}`, signal);
    } catch (error) {
      if (!(error instanceof Declined)) throw error;
      this.#say(error.message);
      return false;
    }
    if (fresh) {
      this.attempt = attempt;
      this.decoder = new TextDecoder();
      this.cut = false;
      this.text.replaceChildren();
      fill(this.heading, `Log of attempt ${attempt}`);
    }
    this.next = Number(headers.get("Next-Offset"));
    this.cut ||= fresh && this.next > data.byteLength;
    const more = safe(this.decoder.decode(data, { stream: true }));
    if (more) this.#add(more);
    const empty = !this.text.textContent;
    this.#say(
      empty
        ? "It has printed nothing so far."
        : this.cut
          ? `The last of it; all of it on the host: ${this.command}`
          : "",
    );
    return !fresh && data.byteLength >= LOG_BYTES;
  }

  #add(more) {
    const below = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
    let text = this.text.textContent + more;
    if (text.length > MOST) {
      text = text.slice(text.indexOf("\n", text.length - MOST) + 1);
      this.cut = true;
    }
    this.text.textContent = text;
    if (below) this.text.scrollTop = this.text.scrollHeight; // who has scrolled up reads
  }

  #say(text) {
    if (this.note.textContent !== text) fill(this.note, text);
    this.note.hidden = !text;
    this.text.hidden = !this.text.textContent;
  }
}

// What may be asked of a workflow: each has to be confirmed, and who may not is told why.

import { Declined, Silent, post } from "./calls.js";
import { el, fill } from "./elements.js";
import { said } from "./live.js";
import { ENDED, OVER, WORKFLOW_STATES } from "./states.js";

// In which states each makes sense; whether it does the gateway decides, and says.
const VERBS = {
  pause: {
    states: ["queued", "running", "abandoned"],
    title: "Pause",
    act: "Pause it",
    tells: "What runs goes on to its end; no other task starts until somebody resumes it.",
  },
  resume: {
    states: ["paused"],
    title: "Resume",
    act: "Resume it",
    tells: "Tasks that can start are started again.",
  },
  retry: {
    states: ENDED.filter((state) => state !== "succeeded"),
    title: "Retry",
    act: "Do it again",
    tells: "What failed, was cancelled or skipped is done again; what succeeded is kept.",
  },
  rollback: {
    states: ["running", "abandoned", "paused", ...ENDED],
    title: "Roll back",
    act: "Undo what was done",
    grave: true,
    tells: "What its tasks have done is undone, the last first, as far as their operations can.",
  },
  cancel: {
    states: WORKFLOW_STATES.filter((state) => !OVER.includes(state)),
    title: "Cancel",
    act: "End the workflow",
    grave: true,
    tells: "Running tasks are told to end, and the others never start.",
  },
};

const dialog = () => document.getElementById("asking");

// The buttons of a workflow in this state. `asked` is called where something was asked, or may have been.
export function buttons(workflow, asked) {
  return Object.entries(VERBS)
    .filter(([, { states }]) => states.includes(workflow.state))
    .map(([verb, { title, grave }]) => {
      const ask = (event) => confirm(event.currentTarget, workflow, verb, [], asked);
      const attributes = { type: "button", class: grave ? "grave" : null, "data-focus": verb, on: { click: ask } };
      return { key: verb, mark: workflow.workflow_id, make: () => el("button", attributes, `${title}…`) };
    });
}

// The button that does one task again, with what waits for it.
export function again(workflow, task, asked) {
  const ask = (event) => confirm(event.currentTarget, workflow, "retry", [task.task_id], asked);
  return el("button", { type: "button", "data-focus": "again", on: { click: ask } }, "Do it again…");
}

// Whether nothing was asked: not where the answer is lost, or whoever gave it may not be who was asked.
const known = (error) => error instanceof Declined && error.status < 500;

function confirm(opener, workflow, verb, tasks, asked) {
  const { title, act, tells, grave } = VERBS[verb];
  const box = dialog();
  const wrong = el("div", { role: "alert" });
  const leave = el(
    "button",
    { type: "button", autofocus: true, on: { click: () => box.close() } },
    "Leave it as it is",
  );
  const yes = el("button", { type: "button", class: grave ? "grave" : "main" }, act);
  yes.addEventListener("click", async () => {
    if (yes.getAttribute("aria-disabled")) return;
    yes.setAttribute("aria-disabled", "true"); // and not disabled: it would lose the focus
    fill(wrong);
    const stays = () => box.open && wrong.isConnected; // whoever waits may leave, and ask something else
    try {
      const told = await post(`workflows/${workflow.workflow_id}/${verb}`, tasks.length ? { tasks } : {});
      if (stays()) box.close();
      const later = "It is done as soon as an orchestrator looks.";
      said(told.queued ? `Asked: ${told.asked}. ${later}` : `Done: ${told.asked}.`);
      asked();
    } catch (error) {
      yes.removeAttribute("aria-disabled");
      if (!(error instanceof Declined || error instanceof Silent)) throw error;
      const text = `${known(error) ? "Not asked" : "It is not known whether it was asked"}: ${error.message}`;
      if (stays()) {
        const hint = error.hint ? el("p", { class: "hint" }, error.hint) : null;
        fill(wrong, el("p", {}, el("strong", {}, text)), hint);
      } else said(`${what}. ${text}`, { seen: true });
      if (!known(error)) asked();
    }
  });
  const what = tasks.length ? `${title}: task ${tasks[0]} of ${workflow.name}` : `${title}: ${workflow.name}`;
  const means = tasks.length ? "This task and all that waits for it are done again, also what has succeeded." : tells;
  fill(
    box,
    el("h2", { id: "asking-title" }, what),
    el("p", { class: "soft" }, workflow.workflow_id),
    el("p", {}, means),
    wrong,
    el("p", { class: "choice" }, leave, yes),
  );
  box.addEventListener(
    "close",
    () => {
      fill(box);
      (opener.isConnected ? opener : document.getElementById("content")).focus();
    },
    { once: true },
  );
  box.showModal();
}

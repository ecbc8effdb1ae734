// The page: which part of it an address means, who calls, and what is shown where something is refused.

import { Declined, get, token } from "./calls.js";
import { el, fill, tick } from "./elements.js";
import * as list from "./list.js";
import { Wake, connection, said, watch } from "./live.js";
import * as task from "./task.js";
import * as workflow from "./workflow.js";

const ID = "[0-7][0-9a-hjkmnp-tv-z]{0,25}";
const VIEWS = [
  [new RegExp("^#/$"), list],
  [new RegExp(`^#/workflows/(${ID})$`), workflow],
  [new RegExp(`^#/workflows/(${ID})/([a-z0-9._~-]{1,350})$`), task],
];
const UNKNOWN = 401,
  FORBIDDEN = 403;
const SECONDS = 5; // until it is asked again who calls

const main = document.getElementById("content");
let leaving = new AbortController();
let calling = new AbortController();
let now = { path: null };
let begun = false; // before that the focus is where the browser has put it

async function show() {
  const address = location.hash || "#/";
  const mark = address.indexOf("?");
  const path = mark < 0 ? address : address.slice(0, mark);
  const query = new URLSearchParams(mark < 0 ? "" : address.slice(mark + 1));
  if (now.path === path && now.query) {
    // another part of the same: it stays, and shows that
    for (const key of [...now.query.keys()]) now.query.delete(key);
    for (const [key, value] of query) now.query.append(key, value);
    now.wake.now();
    return;
  }
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const box = document.getElementById("asking");
  if (box.open) box.close();
  const first = !begun;
  begun = true;
  now = { path };
  connection.show("");
  said("");
  const [found, shows] = VIEWS.map(([pattern, each]) => [pattern.exec(path), each]).find(([match]) => match) ?? [];
  if (!found) {
    fill(
      main,
      el("h1", { tabindex: "-1" }, "There is no such page"),
      el("p", {}, el("a", { href: "#/" }, "All workflows")),
    );
    if (!first) main.querySelector("h1").focus();
    return;
  }
  document.title = shows.title(found.slice(1));
  now = { path, query, wake: new Wake() };
  try {
    const shown = shows.view(main, found.slice(1), { query, wake: now.wake, signal });
    if (!first) main.querySelector("h1").focus();
    await shown;
  } catch (error) {
    if (signal.aborted) return;
    now = { path }; // the next time it begins anew
    if (!(error instanceof Declined)) {
      refused(new Declined(0, { message: `the page itself failed: ${error.message}`, hint: "load it again" }));
      throw error;
    }
    refused(error);
  }
}

function refused(error) {
  connection.show("");
  const wrong = el(
    "div",
    { role: "alert" },
    el("p", {}, el("strong", {}, error.message)),
    error.problems.length > 1
      ? el(
          "ul",
          {},
          error.problems.slice(0, 50).map((each) => el("li", {}, each)),
        )
      : null,
    error.hint ? el("p", { class: "hint" }, error.hint) : null,
  );
  const signing = [UNKNOWN, FORBIDDEN].includes(error.status);
  fill(
    main,
    el("h1", { tabindex: "-1" }, signing ? "Who are you?" : "That cannot be shown"),
    el("section", {}, wrong, signing ? signIn() : null),
    el(
      "p",
      {},
      el(
        "a",
        {
          href: "#/",
          on: {
            click: () => {
              if (location.hash === "#/") show();
            },
          },
        },
        "All workflows",
      ),
    ),
  );
  main.querySelector("h1").focus();
}

function signIn() {
  const field = el("input", {
    id: "token",
    type: "password",
    autocomplete: "off",
    required: true,
    spellcheck: "false",
    size: "44",
  });
  const form = el(
    "form",
    { class: "signing" },
    el("p", {}, el("label", { for: "token" }, "Token"), field),
    el("p", {}, el("button", { class: "main" }, "Sign in")),
    el(
      "p",
      { class: "soft" },
      "Made on the host by: provisioning authority token OPERATOR. ",
      "It stays in this tab, until the tab is closed or you sign out.",
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = field.value.trim();
    field.setCustomValidity(
      /^[\x21-\x7e]+$/.test(given) ? "" : "A token has letters, digits and signs only, and no spaces.",
    );
    if (!form.reportValidity()) return;
    token.keep(given);
    start();
  });
  field.addEventListener("input", () => field.setCustomValidity(""));
  return form;
}

// Who is signed in; asked anew while nobody answers, or the gateway cannot say.
async function caller() {
  const place = document.getElementById("caller");
  calling.abort(); // who called before is nobody's matter now
  calling = new AbortController();
  const { signal } = calling;
  const forget = () => {
    token.forget();
    start();
  };
  const out = (text) => (token.given() ? el("button", { type: "button", on: { click: forget } }, text) : null);
  fill(place);
  await watch(async () => {
    try {
      const found = await get("caller", signal);
      fill(place, `You are ${found.operator}${found.own ? ", who owns the spool" : ""} `, out("Sign out"));
      return null;
    } catch (error) {
      if (!(error instanceof Declined)) throw error;
      fill(place, out("Forget the token"));
      return error.status < 500 ? null : SECONDS;
    }
  }, signal);
}

function start() {
  now = { path: null };
  caller();
  show();
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part behind # says what is shown
  main.focus();
});
window.addEventListener("hashchange", show);
setInterval(tick, 1000);
start();

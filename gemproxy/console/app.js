/** The page: which view is shown, and the key that opens it. */

import * as accounts from "./accounts.js";
import { ask, get } from "./api.js";
import * as checks from "./checks.js";
import { alertBox, announce, field, fill, h } from "./dom.js";
import * as journal from "./journal.js";
import * as now from "./now.js";
import * as plots from "./plots.js";
import * as routes from "./routes.js";
import * as settings from "./settings.js";
import * as trial from "./trial.js";
import * as usage from "./usage.js";

// By their names in the address, such as #try.
const VIEWS = { now, plots, journal, try: trial, accounts, usage, routes, settings, checks };
const FIRST = Object.keys(VIEWS)[0];

const main = document.getElementById("content");
const leave = document.getElementById("leave");
let leaving = new AbortController();

function place() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  return {
    name: Object.hasOwn(VIEWS, name) ? name : FIRST,
    rest: decodeURIComponent(rest.join("/")),
  };
}

async function show(isFirst = false) {
  const { name, rest } = place();
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const view = VIEWS[name];
  document.title = `${view.title} – gemproxy`;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const content = h("div", { class: "view" });
  delete main.dataset.shown;
  fill(main, h("h1", {}, view.title), content);
  // Whoever listens to the page is told that it is another one.
  if (!isFirst) main.focus();
  try {
    await view.show(content, { signal, rest });
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) askForKey();
    else content.prepend(alertBox(error));
  } finally {
    if (!signal.aborted) main.dataset.shown = location.hash.slice(1) || name;
  }
}

function askForKey() {
  leaving.abort();
  const key = h("input", { type: "password", autocomplete: "current-password", required: true });
  const problem = h("div");
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        try {
          await ask("admin/login", { method: "POST", body: { key: key.value } });
          await enter();
        } catch (error) {
          fill(problem, alertBox(error));
        }
      },
    },
    h("p", {}, "The console is opened by the daemon's ADMIN_KEY."),
    problem,
    field("Admin key", key),
    h("button", { class: "primary" }, "Open"),
  );
  fill(main, h("h1", {}, "A key is needed"), form);
  main.dataset.shown = "login";
  leave.hidden = true;
  key.focus();
}

/** Shows what the address says, or asks for the key where one is needed. */
async function enter(isFirst = false) {
  try {
    const { open, needs_key: needsKey } = await get("admin/login");
    if (needsKey && !open) return askForKey();
    leave.hidden = !needsKey;
  } catch (error) {
    announce(error.message);
  }
  await show(isFirst);
}

fill(
  document.getElementById("views"),
  Object.entries(VIEWS).map(([name, view]) =>
    h("li", {}, h("a", { href: `#${name}` }, view.title)),
  ),
);
document.addEventListener("locked", askForKey);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => show());
addEventListener("unhandledrejection", ({ reason }) => {
  if (reason?.name !== "AbortError") announce(reason?.message ?? String(reason));
});
leave.addEventListener("click", async () => {
  await ask("admin/logout", { method: "POST" });
  askForKey();
});
enter(true);

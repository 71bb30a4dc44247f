/** What is missing, and what mends it: the findings of `gemproxy doctor`. */

import { get } from "./api.js";
import { Table, add, fill, h } from "./dom.js";

export const title = "Checks";

const CLASSES = { ok: "good", warning: "warn", failed: "bad" };

export async function show(main, { signal }) {
  const found = new Table("Checks, as gemproxy doctor makes them", [
    "Check",
    "State",
    "What was found",
  ]);
  const again = h("button", { type: "button", onclick: draw }, "Check again");
  add(main, found.element, h("p", {}, again));
  async function draw() {
    again.disabled = true;
    try {
      const { checks } = await get("admin/checks", { signal });
      found.rows(
        checks.map(({ check, state, message, fix }) => [
          check,
          h("span", { class: CLASSES[state] }, state),
          [h("div", {}, message), fix && h("div", {}, withCommands(fix))],
        ]),
      );
    } finally {
      again.disabled = false;
    }
  }
  await draw();
}

/** Says above a view what is wrong, if anything is. */
export async function showProblems(place, signal) {
  const { checks } = await get("admin/checks", { signal });
  const wrong = checks.filter(({ state }) => state === "failed" || state === "warning");
  if (!wrong.length) return;
  fill(
    place,
    h(
      "section",
      { class: "problems", "aria-labelledby": "problems" },
      h("h2", { id: "problems" }, "Something is missing"),
      h(
        "dl",
        {},
        wrong.map(({ check, state, message, fix }) =>
          h(
            "div",
            {},
            h("dt", { class: CLASSES[state] }, check),
            h("dd", {}, message, " ", withCommands(fix)),
          ),
        ),
      ),
      h("p", {}, h("a", { href: "#checks" }, "All checks")),
    ),
  );
}

/** What stands in backticks is a command. */
function withCommands(text) {
  return text.split("`").map((piece, at) => (at % 2 ? h("code", {}, piece) : piece));
}

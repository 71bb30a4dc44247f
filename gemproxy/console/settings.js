/** What is set, and where that comes from. */

import { get } from "./api.js";
import { Table, add, field, h } from "./dom.js";
import { none } from "./format.js";

export const title = "Settings";

export async function show(main, { signal }) {
  const { version, file, demo, settings } = await get("admin/settings", { signal });
  const filter = h("input", { type: "search", oninput: draw });
  const changed = new Table("Settings", ["Name", "Value", "From", "Meaning"]);
  function draw() {
    const wanted = filter.value.toLowerCase();
    const found = settings.filter(({ name, meaning }) =>
      `${name} ${meaning}`.toLowerCase().includes(wanted),
    );
    changed.rows(
      found.map(({ name, option, value, origin, default: usual, meaning }) => [
        [h("code", {}, name), h("div", { class: "faint" }, option)],
        h("code", {}, value ?? none),
        origin === "default"
          ? "default"
          : [h("strong", {}, origin), h("div", { class: "faint" }, `default: ${usual || none}`)],
        meaning,
      ]),
    );
  }
  add(
    main,
    h(
      "p",
      {},
      `gemproxy ${version}. `,
      file ? ["Configuration file: ", h("code", {}, file), "."] : "There is no configuration file.",
      demo && " The demo is served in place of Gemini.",
    ),
    field("Filter", filter, "A part of the name or the meaning."),
    changed.element,
  );
  draw();
}

/** Who gets a model. */

import { get, send } from "./api.js";
import { add, alertBox, announce, fill, h, table } from "./dom.js";

export const title = "Routes";

export async function show(main, { signal }) {
  const place = h("div");
  const reload = h(
    "button",
    {
      type: "button",
      onclick: async () => {
        try {
          const { changed } = await send("POST", "admin/reload");
          announce(changed.length ? `Changed: ${changed.join(", ")}` : "Nothing has changed.");
          await draw();
        } catch (error) {
          fill(place, alertBox(error));
        }
      },
    },
    "Read the configuration file anew",
  );
  add(
    main,
    h(
      "p",
      {},
      "For each model, the first rule that applies decides. A * stands for any characters.",
    ),
    place,
    h("p", {}, reload),
  );
  async function draw() {
    const { routes } = await get("admin/routes", { signal });
    fill(
      place,
      table(
        "Routes, in their order",
        ["Model", "Asked"],
        routes.map(({ model, target }) => [model, target]),
      ),
    );
  }
  await draw();
}

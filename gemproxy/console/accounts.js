/** Who may use the daemon, and how much. */

import { get, send } from "./api.js";
import { Table, add, alertBox, announce, checkbox, confirmButton, field, fill, h } from "./dom.js";
import { moment, none, number, short } from "./format.js";

export const title = "Accounts";

export async function show(main, { signal }) {
  const list = new Table(
    "Accounts",
    ["Name", "Key", "Models", "Limits", "Budget", "Spent", "Expires", "State", "Change"],
    "There are none: clients need no key.",
  );
  const made = h("div");
  const place = h("div");
  add(main, list.element, made, place);

  async function draw() {
    const { data } = await get("admin/keys", { signal });
    fill(made);
    list.rows(data.map((account) => asRow(account, actionsFor(account))));
    fill(place, accountForm("Add an account", {}, true, addOne));
  }

  function actionsFor(account) {
    if (account.is_setting) return "in PROXY_API_KEYS";
    const { name } = account;
    const path = `admin/keys/${encodeURIComponent(name)}`;
    return [
      h(
        "button",
        {
          type: "button",
          "aria-label": `change ${name}`,
          onclick: () => {
            const change = async (limits) => {
              await send("PATCH", path, limits);
              announce(`${name} is changed.`);
              await draw();
              list.element.focus();
            };
            fill(place, accountForm(`Change ${name}`, account, false, change, draw));
            place.querySelector("input").focus();
          },
        },
        "Change",
      ),
      " ",
      confirmButton("Revoke", `revoke ${name}`, async () => {
        await send("DELETE", path);
        announce(`${name} is revoked.`);
        await draw();
        list.element.focus();
      }),
    ];
  }

  async function addOne(account) {
    const { name, secret } = await send("POST", "admin/keys", account);
    await draw();
    fill(
      made,
      h(
        "section",
        { class: "notice", tabindex: "-1", "aria-label": "The new key" },
        h("p", {}, `The key of ${name}, which is shown this once:`),
        h("p", {}, h("code", {}, secret)),
      ),
    );
    made.firstChild.focus();
  }

  await draw();
}

function asRow(account, actions) {
  const limits = [
    account.requests_per_minute && `${short(account.requests_per_minute)} requests/min`,
    account.tokens_per_minute && `${short(account.tokens_per_minute)} tokens/min`,
    account.concurrent && `${short(account.concurrent)} at once`,
  ];
  return [
    account.name,
    h("code", {}, account.key ?? none),
    account.models.join(", ") || "all",
    lines(limits.filter(Boolean)),
    lines(account.budgets),
    lines(Object.entries(account.spent ?? {}).map(([period, spent]) => spentIn(period, spent))),
    account.expires === null ? none : moment(account.expires),
    account.on ? h("span", { class: "good" }, "on") : h("span", { class: "bad" }, "off"),
    actions,
  ];
}

function spentIn(period, { requests, tokens, cost }) {
  const money = cost ? `, ${cost.toFixed(4)}` : "";
  return `${period}: ${number(requests)} requests, ${short(tokens)} tokens${money}`;
}

function lines(texts) {
  return texts.length ? texts.map((text) => h("div", {}, text)) : none;
}

/** A form for the limits of an account; `done` is given them as the daemon takes them. */
function accountForm(title, account, isNew, done, cancel) {
  const amount = (value) => h("input", { type: "number", min: 1, step: 1, value: value ?? "" });
  const inputs = {
    name: h("input", { required: true, maxlength: 64, autocomplete: "off" }),
    models: h("input", { value: (account.models ?? []).join(", "), autocomplete: "off" }),
    requests: amount(account.requests_per_minute),
    tokens: amount(account.tokens_per_minute),
    concurrent: amount(account.concurrent),
    budgets: h("input", { value: (account.budgets ?? []).join(", "), autocomplete: "off" }),
    expires: h("input", { type: "date", value: dayOf(account.expires) }),
  };
  const on = checkbox("The key is taken", { checked: account.on ?? true });
  const problem = h("div");
  return h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        try {
          await done({
            ...(isNew && { name: inputs.name.value.trim() }),
            ...limitsIn(inputs, account),
            on: on.box.checked,
          });
        } catch (error) {
          fill(problem, alertBox(error));
        }
      },
    },
    h("h2", {}, title),
    problem,
    h(
      "div",
      { class: "fields" },
      isNew && field("Name", inputs.name),
      field("Models", inputs.models, "Patterns such as gemini-*, with commas; none for all."),
      field("Requests a minute", inputs.requests),
      field("Tokens a minute", inputs.tokens),
      field("Requests at once", inputs.concurrent),
      field("Budgets", inputs.budgets, "Such as 5USD/month, 200k tokens/day."),
      field("Expires", inputs.expires, "At the beginning of that day, UTC."),
    ),
    h(
      "div",
      { class: "actions" },
      on.element,
      h("button", { class: "primary" }, isNew ? "Add" : "Save"),
      cancel && h("button", { type: "button", onclick: cancel }, "Cancel"),
    ),
  );
}

function limitsIn(inputs, account) {
  const list = ({ value }) =>
    value
      .split(",")
      .map((text) => text.trim())
      .filter(Boolean);
  const amount = ({ value }) => (value === "" ? null : Number(value));
  const { value: day } = inputs.expires;
  return {
    models: list(inputs.models),
    requests_per_minute: amount(inputs.requests),
    tokens_per_minute: amount(inputs.tokens),
    concurrent: amount(inputs.concurrent),
    budgets: list(inputs.budgets),
    // A time of the day that was set elsewhere stays.
    ...(day !== dayOf(account.expires) && { expires: day || null }),
  };
}

function dayOf(time) {
  return time ? new Date(time * 1000).toISOString().slice(0, 10) : "";
}

/** The last exchanges: a list that is searched, and one that is opened. */

import { showAnswer } from "./answer.js";
import { address, client, get } from "./api.js";
import { Table, add, announce, choice, facts, field, h } from "./dom.js";
import { moment, none, number, seconds } from "./format.js";
import { turnsOf } from "./request.js";

export const title = "Journal";

const PAGE = 50;
const STATUSES = [
  ["", "any"],
  ["error", "all errors"],
  ["2xx", "2xx"],
  ["4xx", "4xx"],
  ["429", "429"],
  ["5xx", "5xx"],
];

// The search outlasts a look at an exchange.
const kept = { id: "", model: "", account: "", status: "", text: "" };

export function show(main, { signal, rest }) {
  return rest ? showOne(main, rest, signal) : showList(main, signal);
}

async function showList(main, signal) {
  const inputs = {
    text: h("input", { type: "search" }),
    model: h("input", { type: "search" }),
    account: h("input", { type: "search" }),
    id: h("input", { type: "search" }),
    status: choice(STATUSES),
  };
  for (const [name, input] of Object.entries(inputs)) input.value = kept[name];
  const list = new Table("Exchanges, the newest first", [
    "Model",
    "Time",
    "Account",
    "Status",
    ["Tokens in", "number"],
    ["out", "number"],
    ["First token", "number"],
    ["Duration", "number"],
    "Request",
  ]);
  const older = h("button", { type: "button", hidden: true, onclick: () => more() }, "Older ones");
  const reached = h("p", { class: "faint" });
  let found = [];
  let next = null;
  // Only the last search counts.
  let searching = new AbortController();

  async function search() {
    searching.abort();
    searching = new AbortController();
    signal.addEventListener("abort", () => searching.abort(), { signal: searching.signal });
    found = [];
    next = null;
    await more();
  }

  async function more() {
    const { signal } = searching;
    older.disabled = true;
    const wanted = new URLSearchParams({ limit: PAGE });
    for (const [name, value] of Object.entries(kept)) if (value) wanted.set(name, value);
    if (next !== null) wanted.set("before", next);
    const asked = get(`admin/journal?${wanted}`, { signal });
    const page = await asked.finally(() => (older.disabled = false));
    found = [...found, ...page.data];
    next = page.next;
    list.rows(found.map(asRow));
    older.hidden = next === null;
    reached.textContent = `${number(found.length)} found${next === null ? "." : `, as far as number ${next}.`}`;
  }

  add(
    main,
    h(
      "form",
      {
        role: "search",
        onsubmit: async (event) => {
          event.preventDefault();
          for (const [name, input] of Object.entries(inputs)) kept[name] = input.value.trim();
          await search();
        },
      },
      h(
        "div",
        { class: "fields" },
        field("Text", inputs.text),
        field("Model", inputs.model),
        field("Account", inputs.account),
        field("Request", inputs.id),
        field("Status", inputs.status),
      ),
      h("div", { class: "actions" }, h("button", { class: "primary" }, "Search")),
    ),
    list.element,
    reached,
    h("p", {}, older),
  );
  await search();
}

function asRow(entry) {
  const failed = entry.error || entry.status >= 400;
  return [
    h("a", { href: `#journal/${entry.number}` }, entry.model ?? none),
    moment(entry.time),
    entry.account ?? none,
    h("span", { class: failed ? "bad" : "good" }, entry.status ?? none, entry.error && " error"),
    number(entry.prompt_tokens),
    number(entry.completion_tokens),
    seconds(entry.first_token),
    seconds(entry.duration),
    entry.id,
  ];
}

async function showOne(main, name, signal) {
  const entry = await get(`admin/journal/${encodeURIComponent(name)}`, { signal });
  add(
    main,
    h("p", {}, h("a", { href: "#journal" }, "All exchanges")),
    facts([
      ["Model", entry.model],
      ["Account", entry.account],
      ["Time", moment(entry.time)],
      ["Status", entry.status],
      ["Finish", [entry.finish_reason, entry.native_finish_reason].filter(Boolean).join(", ")],
      ["Path", entry.path],
      ["Route", entry.route],
      ["Tokens in", entry.prompt_tokens],
      ["Tokens out", entry.completion_tokens],
      ["First token", entry.first_token !== null && seconds(entry.first_token)],
      ["Duration", entry.duration !== null && seconds(entry.duration)],
      ["Retries", entry.retries || null],
      ["Request", entry.id],
      ["The upstream's name for it", entry.upstream_request],
    ]),
    entry.error && h("p", { class: "alert" }, entry.error),
    h("h2", {}, "Request"),
    entry.request === null
      ? h(
          "p",
          { class: "faint" },
          `It is too large to be shown: ${number(entry.request_bytes)} bytes.`,
        )
      : requestAsTurns(entry.request),
    answers(entry, signal),
  );
}

function requestAsTurns(request) {
  return [
    turnsOf(request).map(({ role, text }) =>
      h("article", { class: "turn" }, h("h3", {}, role), h("pre", { class: "text" }, text)),
    ),
    h(
      "details",
      {},
      h("summary", {}, "The request as it came"),
      h("pre", {}, JSON.stringify(request, null, 2)),
    ),
  ];
}

/** The answer, and beside it another one. */
function answers(entry, signal) {
  const old = h("section", {}, h("h2", {}, "Answer"), (entry.answer ?? []).map(asChoice));
  if (!entry.answer?.length) old.append(h("p", { class: "faint" }, "There is none."));
  if (entry.is_cut) old.append(h("p", { class: "faint" }, "The rest was not kept."));
  const place = h("div");
  const renewed = h("section", { hidden: true }, h("h2", {}, "Asked again"), place);
  const unrepeatable =
    entry.request === null || !entry.path
      ? "It cannot be asked again: the request is not known."
      : entry.has_left_out && "It cannot be asked again: pictures and files are not kept.";
  const key = h("input", { type: "password", autocomplete: "off", value: client.key });
  const again = h("button", { class: "primary", disabled: Boolean(unrepeatable) }, "Ask again");
  const stop = h("button", { type: "button", disabled: true }, "Stop");
  const curl = h("button", { type: "button", disabled: Boolean(unrepeatable) }, "Copy as curl");
  const command = h("pre", { hidden: true });
  let stopping = null;
  signal.addEventListener("abort", () => stopping?.abort());

  async function askAgain(event) {
    event.preventDefault();
    client.key = key.value.trim();
    renewed.hidden = false;
    again.disabled = true;
    stop.disabled = false;
    stopping = new AbortController();
    await showAnswer(place, entry.path.slice(1), entry.request, { signal: stopping.signal });
    again.disabled = false;
    stop.disabled = true;
  }

  stop.addEventListener("click", () => stopping?.abort());
  curl.addEventListener("click", async () => {
    command.textContent = asCurl(entry);
    command.hidden = false;
    try {
      await navigator.clipboard.writeText(command.textContent);
      announce("Copied.");
    } catch {
      // Browsers let only pages at https or localhost copy.
      getSelection().selectAllChildren(command);
      announce("The command is selected: copy it.");
    }
  });
  return [
    h("div", { class: "beside" }, old, renewed),
    h(
      "form",
      { onsubmit: askAgain },
      unrepeatable && h("p", { class: "faint" }, unrepeatable),
      field(
        "Client key",
        key,
        "Where there are PROXY_API_KEYS, or for an upstream. It is not kept.",
      ),
      h("div", { class: "actions" }, again, stop, curl),
    ),
    command,
  ];
}

function asChoice(message) {
  const { content, reasoning_content: thoughts, tool_calls: calls, ...rest } = message;
  delete rest.role;
  delete rest.index;
  const others = Object.keys(rest).length ? JSON.stringify(rest, null, 2) : null;
  return [
    thoughts &&
      h(
        "details",
        { open: true },
        h("summary", {}, "Thoughts"),
        h("pre", { class: "text" }, thoughts),
      ),
    h(
      "pre",
      { class: "text" },
      typeof content === "string" ? content : JSON.stringify(content ?? ""),
    ),
    calls &&
      h(
        "details",
        { open: true },
        h("summary", {}, "Calls"),
        h("pre", {}, JSON.stringify(calls, null, 2)),
      ),
    others && h("details", {}, h("summary", {}, "Other parts"), h("pre", {}, others)),
  ];
}

function asCurl({ path, request }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  return [
    `curl ${quoted(address(path.slice(1)).href)}`,
    "-H 'Content-Type: application/json'",
    '-H "Authorization: Bearer $API_KEY"',
    `-d ${quoted(JSON.stringify(request))}`,
  ].join(" \\\n  ");
}

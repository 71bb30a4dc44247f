/** What is under way: requests, workers, keys, upstreams. */

import { send } from "./api.js";
import { showProblems } from "./checks.js";
import { Table, add, announce, confirmButton, field, fill, h, painter, setText } from "./dom.js";
import { age, moment, none, number } from "./format.js";
import { Live, follow } from "./live.js";

export const title = "Now";

// Rows that are shown before somebody asks for more: nobody reads a thousand.
const ROWS = 50;
const MEGABYTE = 1024 * 1024;

export function show(main, { signal }) {
  const live = new Live();
  const connection = h("p", { class: "faint" }, "Connecting…");
  const summary = h("p", { id: "summary" });
  const filter = h("input", { type: "search", oninput: () => draw() });
  const requests = new RequestTable(live);
  const machines = new Machines();
  const draw = painter(() => {
    if (signal.aborted) return;
    setText(summary, requests.draw(filter.value.toLowerCase()));
    machines.draw(live.rest);
  });
  requests.more.addEventListener("click", () => {
    requests.limit += ROWS;
    draw();
  });
  const problems = h("div");
  add(
    main,
    problems,
    connection,
    summary,
    field("Filter", filter, "A part of a model, an account, a state or an id."),
    requests.table.element,
    h("p", {}, requests.more),
    machines.elements,
  );
  showProblems(problems, signal).catch((error) => signal.aborted || announce(error.message));
  // Requests age.
  const clock = setInterval(draw, 1000);
  signal.addEventListener("abort", () => clearInterval(clock));
  follow(live, {
    signal,
    told: (changed) => {
      setText(connection, "Live.");
      machines.changed(changed);
      draw();
    },
    lost: (error) => setText(connection, `${error.message} It is tried again.`),
  }).catch((error) => fill(connection, error.message));
}

/** Its rows stay as long as their requests do, and only cells that have changed are written. */
class RequestTable {
  constructor(live) {
    this.live = live;
    this.limit = ROWS;
    this.shown = new Map();
    this.more = h("button", { type: "button", hidden: true }, "Show more");
    this.table = new Table("Requests under way", [
      "Model",
      "Account",
      "State",
      ["Age", "number"],
      ["Tokens", "number"],
      ["Tokens/s", "number"],
      "Client",
      "Request",
      "End",
    ]);
    this.table.element.classList.add("requests");
  }

  /** Brings the rows up to date; returns a sentence on all requests. */
  draw(filter) {
    const now = this.live.now();
    const states = new Map();
    const wanted = new Map();
    let matching = 0;
    for (const [id, request] of this.live.requests) {
      const state = request.state.replace(/^retry .*/, "waiting to be repeated");
      states.set(state, (states.get(state) ?? 0) + 1);
      if (filter && !describes(request, filter)) continue;
      matching += 1;
      if (wanted.size < this.limit) wanted.set(id, request);
    }
    for (const [id, row] of this.shown) {
      if (!wanted.has(id)) this.remove(id, row);
    }
    for (const [id, request] of wanted) {
      let row = this.shown.get(id);
      if (!row) this.shown.set(id, (row = this.add(id)));
      row.write(request, now);
    }
    this.more.hidden = matching <= this.limit;
    return sentence(Math.max(this.live.total, this.live.requests.size), states);
  }

  add(id) {
    const row = new RequestRow(this.table, id);
    this.table.body.append(row.element);
    return row;
  }

  remove(id, row) {
    // Whoever is at its button by keyboard stays at the table.
    if (row.element.contains(document.activeElement)) this.table.element.focus();
    row.element.remove();
    this.shown.delete(id);
  }
}

class RequestRow {
  constructor(table, id) {
    // Rows move while somebody aims.
    const button = confirmButton("End", `end ${id}`, () =>
      send("POST", `admin/requests/${encodeURIComponent(id)}/end`),
    );
    this.element = table.row(["", "", "", "", "", "", "", id, button]);
    this.cells = [...this.element.cells];
  }

  write(request, now) {
    const texts = [
      request.model ?? none,
      request.account ?? none,
      request.state,
      age(now - request.began),
      number(request.tokens),
      request.speed === null ? none : String(Math.round(request.speed)),
      request.client ?? none,
    ];
    texts.forEach((text, at) => setText(this.cells[at], text));
  }
}

function describes(request, filter) {
  const { model, account, state, id, path, client } = request;
  return [model, account, state, id, path, client].some((text) =>
    text?.toLowerCase().includes(filter),
  );
}

function sentence(total, states) {
  if (!total) return "No request is under way.";
  const parts = [...states].map(([state, count]) => `${number(count)} ${state}`);
  return `${number(total)} ${total === 1 ? "request" : "requests"} under way: ${parts.join(", ")}.`;
}

/** Workers, keys, upstreams and queues, which change seldom. */
class Machines {
  constructor() {
    this.tables = {
      workers: new Table(
        "Workers",
        [
          "Process",
          "State",
          ["Requests", "number"],
          ["Sessions", "number"],
          ["Memory", "number"],
          "Since",
        ],
        "There are none.",
      ),
      keys: new Table("Keys for Gemini", ["Key", "Rests"], "There are none."),
      upstreams: new Table(
        "Upstreams",
        ["Name", "Address", ["Keys", "number"], ["Models", "number"], "State"],
        "There are none.",
      ),
      queues: new Table("Queues", ["What waits", ["Number", "number"]], "Nothing waits."),
    };
    this.stale = new Set(Object.keys(this.tables));
    this.elements = Object.values(this.tables).map((table) => table.element);
  }

  changed(names) {
    for (const name of names) if (name in this.tables) this.stale.add(name);
  }

  draw(state) {
    for (const name of this.stale) {
      if (state[name]) this.tables[name].rows(ROWS_OF[name](state[name]));
    }
    this.stale.clear();
  }
}

const ROWS_OF = {
  workers: (workers) =>
    workers.map(({ pid, state, requests, sessions, memory, since }) => [
      pid ?? none,
      state,
      number(requests),
      number(sessions),
      memory === null || memory === undefined ? none : `${Math.round(memory / MEGABYTE)} MB`,
      moment(since),
    ]),
  keys: (keys) =>
    keys.map(({ key, rests }) => [
      key,
      rests.length
        ? rests.map(({ model, until, reason }) =>
            h(
              "div",
              { class: "warn" },
              `${model ?? "all models"} until ${moment(until)}: ${reason}`,
            ),
          )
        : h("span", { class: "good" }, "in use"),
    ]),
  upstreams: (upstreams) =>
    upstreams.map(({ name, url, keys, models, until, error }) => [
      name,
      url,
      number(keys),
      number(models),
      until
        ? h("span", { class: "bad" }, `rests until ${moment(until)}`, error && `: ${error}`)
        : h("span", { class: "good" }, "in use"),
    ]),
  queues: (queues) => [
    ["Requests for a worker", number(queues.worker)],
    ["Requests that arrive", number(queues.receiving)],
    ["Connections of clients", number(queues.connections)],
    ["Bytes of bodies in memory", number(queues.body_bytes)],
  ],
};

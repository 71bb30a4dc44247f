/** Requests, errors, tokens, waiting and cost over time. */

import { get } from "./api.js";
import { chart } from "./chart.js";
import { add, choice, field, fill, h } from "./dom.js";
import { money, seconds, short } from "./format.js";

export const title = "Plots";

// Lines in one plot: more are hard to tell apart.
const MOST = 6;
const REFRESH = 60_000;
const two = (value) => String(value).padStart(2, "0");
const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;

// What is asked for, and how a moment is written. The daemon's days are those of UTC.
const SPANS = {
  hour: { name: "the last hour", from: "60m", unit: "minute", step: 60, label: clock },
  day: { name: "the last day", from: "24h", unit: "hour", step: 3600, label: clock },
  days: {
    name: "the last 90 days",
    from: "90d",
    unit: "day",
    step: 86_400,
    label: (date) => date.toISOString().slice(5, 10),
  },
};

const kept = { span: "day", by: "" };

export async function show(main, { signal }) {
  const span = choice(
    Object.entries(SPANS).map(([value, { name }]) => [value, name]),
    { onchange: draw },
  );
  const by = choice(
    [
      ["", "nothing"],
      ["model", "model"],
      ["account", "account"],
    ],
    {
      onchange: draw,
    },
  );
  span.value = kept.span;
  by.value = kept.by;
  const place = h("div", { class: "plots" });
  const about = h("p", { class: "faint" });
  add(
    main,
    h("div", { class: "fields" }, field("Period", span), field("Group by", by)),
    place,
    about,
  );
  async function draw() {
    Object.assign(kept, { span: span.value, by: by.value });
    const { from, unit } = SPANS[kept.span];
    const wanted = [unit, kept.by].filter(Boolean).join(",");
    const report = await usageOf(`by=${wanted}&from=${from}`, signal);
    if (!report) return fill(place, nothing());
    fill(place, plots(report, SPANS[kept.span], kept.by));
    about.textContent = aboutCosts(report);
  }
  await draw();
  const timer = setInterval(() => {
    // Nothing is taken away from somebody who reads one of the tables.
    const isRead = place.querySelector("details[open]") ?? place.contains(document.activeElement);
    if (!document.hidden && !isRead) draw().catch(() => {});
  }, REFRESH);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** The usage, or null where none is recorded yet. */
export async function usageOf(question, signal) {
  try {
    return await get(`admin/usage?${question}`, { signal });
  } catch (error) {
    if (error.code === "no_usage") return null;
    throw error;
  }
}

export function nothing() {
  return h(
    "p",
    {},
    "No request is recorded. Where USAGE_DAYS is 0, or DATA_DIR is not set, none will be.",
  );
}

/** What the costs go by; none are made up where there are no prices. */
export function aboutCosts({ currency, prices_as_of: day, total }) {
  if (!day) return "There are no prices in the configuration file, and no costs without them.";
  const missing = total.unpriced_requests
    ? ` ${short(total.unpriced_requests)} requests have no price.`
    : "";
  return `Costs in ${currency} by the prices of ${day}.${missing}`;
}

function plots(report, { unit, step, label }, by) {
  const moments = momentsOf(report.from, step);
  const times = moments.map((time) => label(new Date(time * 1000)));
  const place = new Map(moments.map((time, at) => [time, at]));
  const groups = groupsOf(report.rows, by);
  const values = (rows, fact, empty) => {
    const made = moments.map(() => empty);
    for (const row of rows) {
      const at = place.get(Date.parse(row[unit]) / 1000);
      if (at !== undefined)
        made[at] = typeof empty === "number" ? made[at] + (row[fact] ?? 0) : row[fact];
    }
    return made;
  };
  // Sums are 0 where nothing was, and a time is not known there.
  const sums = (fact, name) =>
    groups.map(([group, rows]) => ({ name: group ?? name, values: values(rows, fact, 0) }));
  const waits = (fact, name) =>
    groups
      .filter(([, , isWhole]) => isWhole)
      .map(([group, rows]) => ({
        name: group ? `${group}, ${name}` : name,
        values: values(rows, fact, null),
      }));
  const cost = (value) => money(value, report.currency);
  return [
    chart("Requests", times, sums("requests", "requests"), short),
    chart("Errors", times, sums("errors", "errors"), short),
    chart("Tokens in", times, sums("input_tokens", "tokens in"), short),
    chart("Tokens out", times, sums("output_tokens", "tokens out"), short),
    ...(by
      ? [
          chart("Time to first token, p50", times, waits("first_token_p50", "p50"), seconds),
          chart("Time to first token, p95", times, waits("first_token_p95", "p95"), seconds),
        ]
      : [
          chart(
            "Time to first token",
            times,
            [...waits("first_token_p50", "p50"), ...waits("first_token_p95", "p95")],
            seconds,
          ),
        ]),
    chart("Cost", times, sums("cost", "cost"), cost),
  ];
}

/** The moments from a time until now, in seconds. */
function momentsOf(from, step) {
  const first = Math.floor(Date.parse(from) / 1000 / step) * step;
  const count = Math.floor((Date.now() / 1000 - first) / step) + 1;
  return Array.from({ length: Math.max(1, count) }, (_, at) => first + at * step);
}

/** The rows of those with the most requests, and of all others together: `[name, rows, isWhole]`. */
function groupsOf(rows, by) {
  if (!by) return [[null, rows, true]];
  const groups = Map.groupBy(rows, (row) => row[by] ?? "none");
  const requests = (rows) => rows.reduce((sum, row) => sum + row.requests, 0);
  const sorted = [...groups].sort(([, a], [, b]) => requests(b) - requests(a));
  const first = sorted.slice(0, MOST).map(([name, rows]) => [name, rows, true]);
  const others = sorted.slice(MOST).flatMap(([, rows]) => rows);
  if (others.length) first.push(["others", others, false]);
  return first.length ? first : [["none", [], true]];
}

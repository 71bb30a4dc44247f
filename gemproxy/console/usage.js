/** Who used how much of what. */

import { address } from "./api.js";
import { add, choice, field, fill, h, table } from "./dom.js";
import { money, none, number, seconds } from "./format.js";
import { aboutCosts, nothing, usageOf } from "./plots.js";

export const title = "Usage";

const GROUPS = [
  ["account,model", "account and model"],
  ["account", "account"],
  ["model", "model"],
  ["upstream", "upstream"],
  ["day", "day"],
  ["month", "month"],
];
const TIMES = [
  ["24h", "the last 24 hours"],
  ["7d", "the last 7 days"],
  ["30d", "the last 30 days"],
  ["90d", "the last 90 days"],
  ["365d", "the last 365 days"],
];

const kept = { by: GROUPS[0][0], from: "30d" };

export async function show(main, { signal }) {
  const by = choice(GROUPS, { onchange: draw });
  const from = choice(TIMES, { onchange: draw });
  by.value = kept.by;
  from.value = kept.from;
  const place = h("div");
  const about = h("p", { class: "faint" });
  const asFile = h("a", { download: "usage.csv" }, "Download as CSV");
  add(
    main,
    h("div", { class: "fields" }, field("Period", from), field("Group by", by)),
    place,
    about,
    h("p", {}, asFile),
  );
  async function draw() {
    Object.assign(kept, { by: by.value, from: from.value });
    const wanted = `by=${kept.by}&from=${kept.from}`;
    asFile.href = address(`admin/usage?${wanted}&format=csv`);
    const report = await usageOf(wanted, signal);
    asFile.hidden = !report;
    if (!report) return fill(place, nothing());
    const rows = report.rows.map((row) => [
      ...report.by.map((name) => row[name] ?? none),
      ...numbers(row, report),
    ]);
    if (rows.length)
      rows.push([
        ...report.by.map((_, at) => (at ? "" : "Total")),
        ...numbers(report.total, report),
      ]);
    const heads = report.by.map((name) => name[0].toUpperCase() + name.slice(1));
    fill(place, table("Usage", [...heads, ...COLUMNS], rows, "Nothing was asked."));
    about.textContent = `${aboutCosts(report)} Days are those of UTC.`;
  }
  await draw();
}

const COLUMNS = [
  "Requests",
  "Errors",
  "Tokens in",
  "of them cached",
  "Tokens out",
  "of them thoughts",
  "Cost",
  "First token, p50",
  "p95",
].map((name) => [name, "number"]);

function numbers(row, { currency }) {
  return [
    number(row.requests),
    number(row.errors),
    number(row.input_tokens),
    number(row.cached_tokens),
    number(row.output_tokens),
    number(row.reasoning_tokens),
    money(row.cost, currency),
    seconds(row.first_token_p50),
    seconds(row.first_token_p95),
  ];
}

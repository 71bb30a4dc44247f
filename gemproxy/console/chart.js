/** A plot of values over time, in SVG, with a table of the same for those who cannot see it. */

import { fill, h, painter, setText, svg, table } from "./dom.js";

const HEIGHT = 200;
const LEFT = 56;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;
// Pixels between two labels of the axis of time.
const LABEL = 90;

/**
 * A figure.
 *
 * @param title - what is plotted
 * @param times - the labels of the moments, from left to right
 * @param series - `{name, values}`, with a value for each moment; null where there is none
 * @param format - writes a value
 */
export function chart(title, times, series, format) {
  const most = Math.max(0, ...series.flatMap(({ values }) => values));
  const top = niceAbove(most);
  const highest = most ? `highest ${format(most)}` : "nothing";
  const names = series.map(({ name }) => name).join(", ");
  const drawing = svg("svg", {
    role: "img",
    "aria-label": `${title}: ${names}; ${highest}`,
    height: HEIGHT,
  });
  const readout = h("p", { class: "faint" }, highest);
  const draw = painter(() => {
    const width = drawing.clientWidth;
    if (!width) return;
    const x = (at) => LEFT + ((width - LEFT - RIGHT) * (at + 0.5)) / times.length;
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    fill(
      drawing,
      axis(width, y, top, format),
      labels(times, x, width),
      series.map(({ values }, number) => line(values, x, y, number)),
    );
  });
  new ResizeObserver(draw).observe(drawing);
  drawing.addEventListener("pointermove", ({ offsetX }) => {
    const share = (offsetX - LEFT) / (drawing.clientWidth - LEFT - RIGHT);
    const at = Math.min(times.length - 1, Math.max(0, Math.floor(share * times.length)));
    const said = series.map(({ name, values }) => `${name} ${format(values[at])}`);
    setText(readout, `${times[at]}: ${said.join(", ")}`);
  });
  drawing.addEventListener("pointerleave", () => setText(readout, highest));
  return h(
    "figure",
    {},
    h("figcaption", {}, title),
    legend(series),
    drawing,
    readout,
    asTable(title, times, series, format),
  );
}

function legend(series) {
  return h(
    "ul",
    { class: "legend" },
    series.map(({ name }, number) =>
      h(
        "li",
        {},
        svg(
          "svg",
          { width: 28, height: 10, "aria-hidden": "true" },
          svg("line", { x1: 0, y1: 5, x2: 28, y2: 5, class: `series series-${number}` }),
        ),
        name,
      ),
    ),
  );
}

function axis(width, y, top, format) {
  return [0, top / 2, top].map((value) =>
    svg(
      "g",
      {},
      svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
    ),
  );
}

function labels(times, x, width) {
  const step = Math.max(1, Math.ceil((times.length * LABEL) / Math.max(LABEL, width - LEFT)));
  return times
    .map((time, at) => svg("text", { x: x(at), y: HEIGHT - 5, "text-anchor": "middle" }, time))
    .filter((_, at) => at % step === Math.floor(step / 2));
}

/** A line with a gap where there is no value; a value between two gaps is a dot. */
function line(values, x, y, number) {
  let path = "";
  values.forEach((value, at) => {
    if (value === null) return;
    const begins = at === 0 || values[at - 1] === null;
    path += `${begins ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (begins && (values[at + 1] ?? null) === null) path += "h0.01";
  });
  return svg("path", { d: path || "M0 0", class: `series series-${number}` });
}

function niceAbove(most) {
  if (!most) return 1;
  const unit = 10 ** Math.floor(Math.log10(most));
  return ([1, 2, 4, 6, 8].find((times) => times * unit >= most) ?? 10) * unit;
}

/** It is made when somebody opens it. */
function asTable(title, times, series, format) {
  const place = h("div");
  const open = () => {
    const columns = ["Time", ...series.map(({ name }) => [name, "number"])];
    const rows = times.map((time, at) => [time, ...series.map(({ values }) => format(values[at]))]);
    fill(place, table(title, columns, rows));
  };
  return h(
    "details",
    { ontoggle: (event) => (event.currentTarget.open ? open() : fill(place)) },
    h("summary", {}, "As a table"),
    place,
  );
}

/**
 * Elements. What comes from outside goes in as text: nothing in the console parses HTML, and the
 * page's policy has the browser refuse to (Trusted Types).
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. An attribute is left out if it is false, null or undefined; one whose value is a
 * function is a listener: `onclick`. Children are elements, texts, or lists of them.
 */
export function h(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), attributes, children);
}

function furnished(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/** Puts these children in the place of all others. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Writes a text where it has changed: an element that is written to is laid out anew. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A field of a form with its label; `control` is the element that takes the value. */
export function field(label, control, hint) {
  control.id ||= `field-${(field.number = (field.number ?? 0) + 1)}`;
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id }, label),
    control,
    hint && h("small", { id: `${control.id}-hint` }, hint),
  );
}

export function checkbox(label, attributes = {}) {
  const box = h("input", { type: "checkbox", ...attributes });
  return { box, element: h("label", { class: "check" }, box, label) };
}

export function choice(options, attributes = {}) {
  return h(
    "select",
    attributes,
    options.map(([value, text]) => h("option", { value }, text)),
  );
}

/**
 * A table. Where it is wider than the screen it can be scrolled, by keyboard too.
 *
 * `columns` are the heads: texts, or `[text, class]`. `rows` are lists of cells, whose classes are
 * those of their columns; the first cell is the head of its row.
 */
export function table(caption, columns, rows, empty = "Nothing here.") {
  const body = h("tbody");
  const heads = columns.map((column) => [column].flat());
  const element = scrollable(
    caption,
    h(
      "table",
      {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
      body,
    ),
  );
  fill(
    body,
    rows.map((cells) =>
      h(
        "tr",
        {},
        cells.map((cell, at) =>
          h(at ? "td" : "th", { class: heads[at][1], scope: at ? null : "row" }, cell),
        ),
      ),
    ),
  );
  if (!rows.length) body.append(h("tr", {}, h("td", { colspan: columns.length, class: "empty" }, empty)));
  return element;
}

export function scrollable(label, child) {
  return h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, child);
}

/** A box that says that something went wrong, and is read out at once. */
export function alertBox(error) {
  return h("p", { class: "alert", role: "alert" }, error.message ?? String(error));
}

/** Says something in passing. */
export function announce(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => (status.textContent = ""), 6000);
}

/**
 * Has `draw` called once in the next frame, however often it is asked for until then. A page that
 * cannot be seen draws nothing.
 */
export function painter(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

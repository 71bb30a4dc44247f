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

/** Puts further children behind those that an element has. */
export function add(element, ...children) {
  element.append(...nodes(children));
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

let fields = 0;

/** A field of a form with its label; `control` is the element that takes the value. */
export function field(label, control, hint) {
  control.id ||= `field-${(fields += 1)}`;
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
 * `columns` are the heads: texts, or `[text, class]`. What `rows` is given are lists of cells, whose
 * classes are those of their columns; the first cell is the head of its row.
 */
export class Table {
  constructor(caption, columns, empty = "Nothing here.") {
    this.heads = columns.map((column) => [column].flat());
    this.empty = empty;
    this.body = h("tbody");
    this.caption = h("caption", {}, caption);
    const heads = this.heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text));
    this.element = h(
      "div",
      { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
      h("table", {}, this.caption, h("thead", {}, h("tr", {}, heads)), this.body),
    );
  }

  row(cells) {
    return h(
      "tr",
      {},
      cells.map((cell, at) =>
        h(at ? "td" : "th", { class: this.heads[at][1], scope: at ? null : "row" }, cell),
      ),
    );
  }

  rows(rows) {
    fill(
      this.body,
      rows.map((cells) => this.row(cells)),
    );
    if (!rows.length) {
      const { length } = this.heads;
      this.body.append(h("tr", {}, h("td", { colspan: length, class: "empty" }, this.empty)));
    }
    return this;
  }
}

/** A table that stays as it is. */
export function table(caption, columns, rows, empty) {
  return new Table(caption, columns, empty).rows(rows).element;
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

/** Facts with their names; those without a value are left out. */
export function facts(pairs) {
  return h(
    "dl",
    {},
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/**
 * A button for what cannot be taken back: a click asks, and a second one does it. `act` may return a
 * promise; while it is waited for, and once it has done its work, nothing more happens.
 */
export function confirmButton(text, label, act) {
  let asks = false;
  let isDone = false;
  const button = h("button", { type: "button", class: "danger" });
  const show = (isAsking) => {
    if (isDone) return;
    asks = isAsking;
    setText(button, asks ? "Really?" : text);
    button.setAttribute("aria-label", asks ? `Really ${label}?` : label);
    if (asks) announce(`Really ${label}? Press the button once more.`);
  };
  button.addEventListener("blur", () => show(false));
  button.addEventListener("click", async () => {
    if (isDone) return;
    if (!asks) return show(true);
    isDone = true;
    // A button that is disabled would lose the focus.
    button.setAttribute("aria-disabled", "true");
    try {
      await act();
    } catch (error) {
      announce(error.message);
      button.removeAttribute("aria-disabled");
      isDone = false;
      show(false);
    }
  });
  show(false);
  return button;
}

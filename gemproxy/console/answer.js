/** An answer of a model as it comes, shown as it is: text, thoughts, calls, pictures. */

import { askModel, events } from "./api.js";
import { alertBox, fill, h, painter } from "./dom.js";
import { number, seconds } from "./format.js";
import { pieceOf } from "./piece.js";

const PICTURE = /^data:image\/(?:png|jpeg|webp|gif);base64,/;
// Events that are kept to be shown, the newest ones, and characters of each.
const RAW_EVENTS = 500;
const RAW_LENGTH = 20_000;

/**
 * Asks a model and shows what it answers.
 *
 * @param place - the element that the answer goes into
 * @param path - that of the API, such as `v1/chat/completions`
 * @param body - the request
 * @param raw - whether the events are shown as they came
 * @returns the text of the answer, or null if there is none
 *
 * The dialect may be any that the daemon speaks.
 */
export async function showAnswer(place, path, body, { signal, raw = false } = {}) {
  const shown = new Answer(place, raw);
  const began = performance.now();
  try {
    const response = await askModel(path, body, signal);
    shown.id = response.headers.get("x-request-id");
    if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
      for await (const { data } of events(response)) {
        shown.addRaw(data);
        if (data === "[DONE]") continue;
        const chunk = JSON.parse(data);
        if (chunk.error?.message) throw new Error(chunk.error.message);
        shown.add(pieceOf(chunk), performance.now() - began);
      }
    } else {
      const document = await response.json();
      shown.addRaw(JSON.stringify(document, null, 2));
      // Google's API answers a list where it streams without events.
      for (const one of [document].flat()) shown.add(pieceOf(one), performance.now() - began);
    }
    return shown.text;
  } catch (error) {
    if (error.name !== "AbortError") {
      shown.fail(error);
      return null;
    }
    shown.ended = "stopped";
    return shown.text || null;
  } finally {
    shown.end(performance.now() - began);
  }
}

class Answer {
  constructor(place, raw) {
    this.text = "";
    this.thoughts = "";
    this.calls = [];
    this.raw = raw ? [] : null;
    this.first = null;
    this.usage = null;
    this.ended = null;
    this.parts = {
      thoughts: h("pre", { class: "text" }),
      text: h("pre", { class: "text" }),
      calls: h("pre", { class: "text" }),
      raw: h("pre", { class: "raw", tabindex: "0", "aria-label": "Raw events" }),
      facts: h("p", { class: "facts" }),
    };
    const { thoughts, text, calls, raw: rawEvents, facts } = this.parts;
    this.place = place;
    this.thinking = h("details", { hidden: true }, h("summary", {}, "Thoughts"), thoughts);
    this.calling = h("details", { hidden: true, open: true }, h("summary", {}, "Calls"), calls);
    this.pictures = h("div");
    fill(place, this.thinking, text, this.pictures, this.calling, raw && rawEvents, facts);
    // It is read out as a whole, not with each word.
    place.setAttribute("aria-busy", "true");
    this.draw = painter(() => this.paint());
  }

  addRaw(data) {
    if (!this.raw) return;
    const rest = data.length - RAW_LENGTH;
    this.raw.push(rest > 0 ? `${data.slice(0, RAW_LENGTH)}… and ${number(rest)} characters` : data);
    if (this.raw.length > RAW_EVENTS) this.raw.shift();
    this.draw();
  }

  add(piece, elapsed) {
    this.usage = piece.usage ?? this.usage;
    this.ended = piece.finish ?? this.ended;
    if (this.first === null && (piece.text || piece.thoughts)) this.first = elapsed;
    this.text += piece.text ?? "";
    this.thoughts += piece.thoughts ?? "";
    for (const call of piece.calls ?? []) this.addCall(call);
    for (const url of piece.pictures ?? []) this.addPicture(url);
    this.draw();
  }

  addCall({ index = this.calls.length, name, arguments: given }) {
    const call = (this.calls[index] ??= { name: "", arguments: "" });
    call.name += name ?? "";
    call.arguments += given ?? "";
  }

  addPicture(url) {
    if (typeof url === "string" && PICTURE.test(url)) {
      this.pictures.append(h("img", { src: url, alt: "A picture in the answer" }));
    }
  }

  paint() {
    append(this.parts.text, this.text);
    append(this.parts.thoughts, this.thoughts);
    this.thinking.hidden = !this.thoughts;
    this.calling.hidden = !this.calls.length;
    append(
      this.parts.calls,
      this.calls.map((call) => `${call?.name}(${call?.arguments})`).join("\n"),
    );
    if (this.raw) this.parts.raw.textContent = this.raw.join("\n");
  }

  fail(error) {
    const status = error.status ? `${error.status}: ` : "";
    this.place.append(alertBox({ message: status + error.message }));
  }

  end(elapsed) {
    this.paint();
    this.place.removeAttribute("aria-busy");
    const tokens = this.usage?.out;
    const writing = (elapsed - (this.first ?? 0)) / 1000;
    const facts = [
      this.ended,
      this.first !== null && `first token after ${seconds(this.first / 1000)}`,
      `${seconds(elapsed / 1000)} in all`,
      tokens && `${number(this.usage.in)} tokens in, ${number(tokens)} out`,
      tokens && writing > 0.05 && `${Math.round(tokens / writing)} tokens/s`,
      this.id && `request ${this.id}`,
    ];
    this.parts.facts.textContent = facts.filter(Boolean).join(" · ");
  }
}

/** Brings an element's text up to date; one that has only grown is not written anew. */
function append(element, text) {
  const node = element.firstChild;
  if (node && text.startsWith(node.data)) node.appendData(text.slice(node.length));
  else element.textContent = text;
}

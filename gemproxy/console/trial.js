/** A small chat, to see what a model answers and how it comes. */

import { showAnswer } from "./answer.js";
import { client, get } from "./api.js";
import { add, checkbox, field, fill, h } from "./dom.js";

export const title = "Try it";

// They outlast a look at another view, but not the page.
const kept = { model: "", system: "", temperature: "", stream: true, raw: false };

export async function show(main, { signal }) {
  const names = h("datalist", { id: "models" });
  const model = h("input", {
    list: "models",
    required: true,
    autocomplete: "off",
    value: kept.model,
  });
  const system = h("textarea", { rows: 2 });
  system.value = kept.system;
  const temperature = h("input", {
    type: "number",
    min: 0,
    max: 2,
    step: 0.1,
    value: kept.temperature,
    placeholder: "the model's own",
  });
  const streaming = checkbox("Stream the answer", { checked: kept.stream });
  const raw = checkbox("Show raw events", { checked: kept.raw });
  const key = h("input", { type: "password", autocomplete: "off", value: client.key });
  const message = h("textarea", { rows: 3, required: true });
  const send = h("button", { class: "primary" }, "Send");
  const stop = h("button", { type: "button", disabled: true }, "Stop");
  const renew = h("button", { type: "button" }, "New conversation");
  const log = h("div", { class: "talk", role: "log", "aria-label": "Conversation", tabindex: "0" });
  const said = [];
  let stopping = null;

  async function ask(event) {
    event.preventDefault();
    if (stopping) return;
    Object.assign(kept, {
      model: model.value,
      system: system.value,
      temperature: temperature.value,
      stream: streaming.box.checked,
      raw: raw.box.checked,
    });
    client.key = key.value.trim();
    const question = { role: "user", content: message.value };
    const answer = h("div");
    log.append(
      turn("You", h("pre", { class: "text" }, question.content)),
      turn(kept.model, answer),
    );
    message.value = "";
    stopping = new AbortController();
    send.disabled = true;
    stop.disabled = false;
    const text = await showAnswer(answer, "v1/chat/completions", request([...said, question]), {
      signal: stopping.signal,
      raw: kept.raw,
    });
    stopping = null;
    send.disabled = false;
    stop.disabled = true;
    // What was not answered is asked again, not part of the conversation.
    if (text === null) message.value ||= question.content;
    else if (text) said.push(question, { role: "assistant", content: text });
    message.focus();
  }

  signal.addEventListener("abort", () => stopping?.abort());
  stop.addEventListener("click", () => stopping?.abort());
  renew.addEventListener("click", () => {
    stopping?.abort();
    said.length = 0;
    fill(log);
    message.focus();
  });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) message.form.requestSubmit();
  });
  add(
    main,
    h(
      "form",
      { onsubmit: ask },
      h(
        "div",
        { class: "fields" },
        field("Model", model),
        names,
        field("Temperature", temperature),
        field(
          "Client key",
          key,
          "Where there are PROXY_API_KEYS, or for an upstream. It is not kept.",
        ),
      ),
      field("System text", system),
      h("div", { class: "actions" }, streaming.element, raw.element),
      log,
      field("Message", message, "Ctrl+Enter sends it."),
      h("div", { class: "actions" }, send, stop, renew),
    ),
  );
  try {
    const headers = client.key ? { authorization: `Bearer ${client.key}` } : {};
    const { data } = await get("v1/models", { signal, headers });
    fill(
      names,
      data.map(({ id }) => h("option", { value: id })),
    );
    model.value ||= data[0]?.id ?? "";
  } catch (error) {
    // The name of a model can be written by hand.
    if (error.name !== "AbortError") model.placeholder = "the list cannot be read";
  }
}

function turn(who, content) {
  return h("article", { class: "turn" }, h("h2", {}, who), content);
}

function request(messages) {
  const body = { model: kept.model, messages, stream: kept.stream };
  if (kept.system) body.messages = [{ role: "system", content: kept.system }, ...messages];
  if (kept.temperature !== "") body.temperature = Number(kept.temperature);
  if (kept.stream) body.stream_options = { include_usage: true };
  return body;
}

/** What the daemon is asked. */

// Where the daemon is, be it below a prefix of a server in front of it.
const ROOT = new URL("..", import.meta.url);

/** The key of a client, for requests to models; it is kept nowhere else. */
export const client = { key: "" };

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
  }
}

export function address(path) {
  return new URL(path, ROOT);
}

/**
 * The response to a request, if it is a good one.
 *
 * `body` is sent as JSON. An error of the daemon is thrown as an ApiError. If it is that nobody may
 * be here without a key, the page is told by the event "locked" as well.
 */
export async function ask(path, { method = "GET", body, signal, headers = {} } = {}) {
  let response;
  try {
    response = await fetch(address(path), {
      method,
      signal,
      headers: {
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "The daemon cannot be reached." });
  }
  if (response.ok) return response;
  const error = await errorOf(response);
  if (response.status === 401 && path.startsWith("admin/") && path !== "admin/login") {
    document.dispatchEvent(new CustomEvent("locked"));
  }
  throw new ApiError(response.status, error);
}

async function errorOf(response) {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    if (typeof error.message === "string") return error;
  } catch {
    // A server in front may answer anything.
  }
  return { message: `HTTP ${response.status}: ${text.slice(0, 300)}` };
}

/** The JSON that the daemon answers. */
export async function get(path, options) {
  return (await ask(path, options)).json();
}

export async function send(method, path, body, options) {
  const response = await ask(path, { method, body, ...options });
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/** Sends a request to a model, with the client's key if there is one. */
export function askModel(path, body, signal) {
  const headers = client.key ? { authorization: `Bearer ${client.key}` } : {};
  return ask(path, { method: "POST", body, signal, headers });
}

/** The events of a stream, as `{event, data}`, as they come; comments are none. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  // The line that is not there yet, in pieces: one with a picture comes in very many.
  let pieces = [];
  let event = "message";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      pieces.push(value);
      if (!value.includes("\n")) continue;
      const lines = pieces.join("").split("\n");
      pieces = [lines.pop()];
      for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (!line) {
          if (data.length) yield { event, data: data.join("\n") };
          event = "message";
          data = [];
        }
      }
    }
  } finally {
    // Whoever leaves does not want the rest.
    reader.cancel().catch(() => {});
  }
}

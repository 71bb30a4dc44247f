/** A request in any dialect, as the turns of a conversation. */

/**
 * The turns as `{role, text}`: of chat completions and Messages (`messages`), Responses (`input`),
 * Google's API (`contents`) and completions (`prompt`).
 */
export function turnsOf(request) {
  const turns = [];
  const add = (role, content) => {
    if (content !== undefined && content !== null)
      turns.push({ role: String(role), text: textOf(content) });
  };
  add("system", request.system);
  add("system", request.instructions);
  add("system", (request.systemInstruction ?? request.system_instruction)?.parts);
  const said = request.messages ?? request.contents ?? request.input ?? request.prompt;
  if (!Array.isArray(said)) add("user", said);
  else for (const turn of said) add(turn?.role ?? turn?.type ?? "user", contentOf(turn));
  return turns;
}

function contentOf(turn) {
  if (turn === null || typeof turn !== "object") return turn;
  const { role, type, content, parts, ...rest } = turn;
  const own = [content ?? parts ?? []].flat();
  return Object.keys(rest).length ? [...own, rest] : own;
}

function textOf(content) {
  return [content]
    .flat()
    .map((part) => {
      if (typeof part === "string") return part;
      if (typeof part?.text === "string") return part.text;
      return JSON.stringify(part, null, 2);
    })
    .join("\n");
}

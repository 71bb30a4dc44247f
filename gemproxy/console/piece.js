/** What a chunk of a stream, or a whole answer, says: in any dialect of the daemon. */

/** `{text, thoughts, calls, pictures, usage: {in, out}, finish}`, each if there is any of it. */
export function pieceOf(chunk) {
  if (chunk.choices) return ofChat(chunk);
  if (chunk.candidates) return ofGoogle(chunk);
  if (chunk.object === "response" || chunk.type?.startsWith("response.")) return ofResponses(chunk);
  return ofMessages(chunk);
}

function ofChat({ choices: [choice], usage }) {
  const said = choice?.delta ?? choice?.message ?? {};
  return {
    text: [choice?.text, said.content, said.refusal]
      .filter((text) => typeof text === "string")
      .join(""),
    thoughts: said.reasoning_content,
    calls: said.tool_calls?.map(({ index, function: called }) => ({ index, ...called })),
    pictures: said.images?.map((image) => image?.image_url?.url),
    usage: usage && { in: usage.prompt_tokens, out: usage.completion_tokens },
    finish: choice?.finish_reason,
  };
}

function ofGoogle({ candidates: [candidate], usageMetadata: usage }) {
  const parts = candidate?.content?.parts ?? [];
  const texts = (thought) =>
    parts.filter((part) => Boolean(part.thought) === thought).map(({ text }) => text ?? "");
  return {
    text: texts(false).join(""),
    thoughts: texts(true).join(""),
    calls: parts
      .filter((part) => part.functionCall)
      .map(({ functionCall: { name, args } }) => ({ name, arguments: JSON.stringify(args ?? {}) })),
    pictures: parts
      .filter((part) => part.inlineData)
      .map(({ inlineData: { mimeType, data } }) => `data:${mimeType};base64,${data}`),
    usage: usage && { in: usage.promptTokenCount, out: usage.candidatesTokenCount },
    finish: candidate?.finishReason,
  };
}

/** OpenAI's Responses: the events of deltas, and the response as a whole where it does not stream. */
function ofResponses({ type, delta, response, object, output = [], usage, status }) {
  if (type === "response.output_text.delta") return { text: delta };
  if (type?.startsWith("response.reasoning") && type.endsWith(".delta")) return { thoughts: delta };
  const whole = response ?? { output, usage, status };
  const items =
    object === "response" ? output : type === "response.completed" ? (whole.output ?? []) : [];
  const used = whole.usage;
  return {
    // The texts of a stream have come before.
    text:
      object === "response"
        ? items.flatMap(({ content = [] }) => content.map(({ text }) => text ?? "")).join("")
        : "",
    calls: items.filter((item) => item.type === "function_call"),
    usage: used && { in: used.input_tokens, out: used.output_tokens },
    finish: type === undefined || type === "response.completed" ? whole.status : undefined,
  };
}

/** Anthropic's Messages. */
function ofMessages({
  type,
  index,
  delta = {},
  content_block: block,
  content = [],
  message,
  usage,
  stop_reason: stop,
}) {
  const used = usage ?? message?.usage;
  const calls = content.filter((item) => item.type === "tool_use");
  const begun = type === "content_block_start" && block?.type === "tool_use";
  return {
    text: delta.text ?? content.map(({ text }) => text ?? "").join(""),
    thoughts: delta.thinking ?? content.map(({ thinking }) => thinking ?? "").join(""),
    calls: [
      ...calls.map(({ name, input }) => ({ name, arguments: JSON.stringify(input) })),
      ...(begun ? [{ index, name: block.name }] : []),
      ...(delta.partial_json ? [{ index, arguments: delta.partial_json }] : []),
    ],
    usage: used?.output_tokens && { in: used.input_tokens, out: used.output_tokens },
    finish: delta.stop_reason ?? stop,
  };
}

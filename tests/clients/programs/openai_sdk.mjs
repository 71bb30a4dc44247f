// OpenAI's SDK: chat completions with its run loop, and the Responses API.
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { client as chat } from "./set_openai_node_chat.mjs";
import { client as responses } from "./set_openai_node_responses.mjs";
import { CITY, MODEL, PICTURE, SYSTEM, collect, serve, weather, wordsOfError } from "./serve.mjs";

const Answer = z.object({ result: z.int() });
const user = (content) => [{ role: "user", content }];
const complete = (messages, fields) =>
  chat.chat.completions.create({ model: MODEL, messages, ...fields });
const respond = (input, fields) => responses.responses.create({ model: MODEL, input, ...fields });
const text = (completion) => completion.choices[0].message.content;

serve({
  "openai-node, chat": {
    answer: async () => text(await complete([{ role: "system", content: SYSTEM }, ...user("Hello")])),
    stream: async () => {
      const runner = chat.chat.completions.stream({ model: MODEL, messages: user("Count") });
      return await collect(runner, (chunk) => chunk.choices[0]?.delta.content);
    },
    tools: async () => {
      const tool = {
        type: "function",
        function: {
          name: "weather",
          description: "Tells the weather.",
          parameters: CITY,
          parse: JSON.parse,
          function: weather,
        },
      };
      const runner = chat.chat.completions.runTools({
        model: MODEL,
        messages: user("Weather?"),
        tools: [tool],
      });
      return await runner.finalContent();
    },
    structured: async () => {
      const parsed = await chat.chat.completions.parse({
        model: MODEL,
        messages: user("2 + 2"),
        response_format: zodResponseFormat(Answer, "answer"),
      });
      return parsed.choices[0].message.parsed;
    },
    thoughts: async () => {
      const [choice] = (await complete(user("2 + 2"), { reasoning_effort: "low" })).choices;
      return [choice.message.reasoning_content, choice.message.content];
    },
    picture: async () =>
      text(
        await complete(
          user([
            { type: "text", text: "What is it?" },
            { type: "image_url", image_url: { url: PICTURE } },
          ]),
        ),
      ),
    error: () => wordsOfError(() => complete(user("Hello"))),
  },
  "openai-node, Responses": {
    answer: async () => (await respond("Hello", { instructions: SYSTEM })).output_text,
    stream: async () => {
      const events = responses.responses.stream({ model: MODEL, input: "Count" });
      return await collect(events, (event) =>
        event.type === "response.output_text.delta" ? event.delta : "",
      );
    },
    tools: async () => {
      const tool = { type: "function", name: "weather", parameters: CITY, strict: true };
      const input = user("Weather?");
      for (;;) {
        const response = await respond(input, { tools: [tool] });
        const calls = response.output.filter((item) => item.type === "function_call");
        if (!calls.length) return response.output_text;
        input.push(...response.output);
        for (const { call_id, arguments: given } of calls) {
          const output = weather(JSON.parse(given));
          input.push({ type: "function_call_output", call_id, output });
        }
      }
    },
    structured: async () => {
      const parsed = await responses.responses.parse({
        model: MODEL,
        input: "2 + 2",
        text: { format: zodTextFormat(Answer, "answer") },
      });
      return parsed.output_parsed;
    },
    thoughts: async () => {
      const got = await respond("2 + 2", { reasoning: { effort: "low", summary: "auto" } });
      return [got.output[0].summary[0].text, got.output_text];
    },
    picture: async () => {
      const content = [
        { type: "input_text", text: "What is it?" },
        { type: "input_image", image_url: PICTURE, detail: "auto" },
      ];
      return (await respond(user(content))).output_text;
    },
    error: () => wordsOfError(() => respond("Hello")),
  },
});

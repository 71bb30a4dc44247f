// Anthropic's SDK, with its helpers for streams, tools and structured output.
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

import { client } from "./set_anthropic_node.mjs";
import { CITY, MODEL, PNG, SYSTEM, collect, serve, weather, wordsOfError } from "./serve.mjs";

const asking = (content, fields) => ({
  model: MODEL,
  max_tokens: 5000,
  messages: [{ role: "user", content }],
  ...fields,
});
const create = (content, fields) => client.messages.create(asking(content, fields));

serve({
  "anthropic-node": {
    answer: async () => (await create("Hello", { system: SYSTEM })).content[0].text,
    stream: () =>
      collect(client.messages.stream(asking("Count")), (event) =>
        event.type === "content_block_delta" ? event.delta.text : "",
      ),
    tools: async () => {
      const tool = betaTool({
        name: "weather",
        description: "Tells the weather.",
        inputSchema: CITY,
        run: weather,
      });
      const thinking = { type: "adaptive" };
      const runner = client.beta.messages.toolRunner(asking("Weather?", { tools: [tool], thinking }));
      return (await runner).content.at(-1).text;
    },
    structured: async () => {
      const format = zodOutputFormat(z.object({ result: z.int() }));
      const parsed = await client.messages.parse(asking("2 + 2", { output_config: { format } }));
      return parsed.parsed_output;
    },
    thoughts: async () => {
      const thinking = { type: "enabled", budget_tokens: 2000 };
      const { content } = await create("2 + 2", { thinking });
      return [content[0].thinking, content[1].text];
    },
    picture: async () => {
      const source = { type: "base64", media_type: "image/png", data: PNG };
      const content = [
        { type: "text", text: "What is it?" },
        { type: "image", source },
      ];
      return (await create(content)).content[0].text;
    },
    error: () => wordsOfError(() => create("Hello")),
  },
});

// Vercel's AI SDK with each of its providers.
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { CITY, PNG, SYSTEM, collect, serve, weather, wordsOfError } from "./serve.mjs";
import { model as anthropic } from "./set_vercel_ai_sdk_anthropic.mjs";
import { model as chat } from "./set_vercel_ai_sdk_chat.mjs";
import { model as google } from "./set_vercel_ai_sdk_google.mjs";
import { model as responses } from "./set_vercel_ai_sdk_responses.mjs";

function features(model, thinking) {
  const ask = (fields) => generateText({ model, maxRetries: 0, ...fields });
  return {
    answer: async () => (await ask({ system: SYSTEM, prompt: "Hello" })).text,
    stream: () => collect(streamText({ model, prompt: "Count" }).textStream, (piece) => piece),
    tools: async () => {
      const told = tool({
        description: "Tells the weather.",
        inputSchema: jsonSchema(CITY),
        execute: weather,
      });
      const tools = { weather: told };
      return (await ask({ prompt: "Weather?", tools, stopWhen: stepCountIs(3) })).text;
    },
    structured: async () => {
      const output = Output.object({ schema: z.object({ result: z.int() }) });
      // Anthropic's provider would take a tool for it with models that it does not know.
      const providerOptions = { anthropic: { structuredOutputMode: "outputFormat" } };
      return (await ask({ prompt: "2 + 2", output, providerOptions })).output;
    },
    thoughts: async () => {
      const got = await ask({ prompt: "2 + 2", providerOptions: thinking });
      return [got.reasoningText, got.text];
    },
    picture: async () => {
      const content = [
        { type: "text", text: "What is it?" },
        { type: "image", image: PNG, mediaType: "image/png" },
      ];
      return (await ask({ messages: [{ role: "user", content }] })).text;
    },
    error: () => wordsOfError(() => ask({ prompt: "Hello" })),
  };
}

serve({
  "Vercel AI SDK, chat": features(chat),
  "Vercel AI SDK, Responses": features(responses, {
    openai: { forceReasoning: true, reasoningEffort: "low", reasoningSummary: "auto" },
  }),
  "Vercel AI SDK, Anthropic": features(anthropic, {
    anthropic: { thinking: { type: "enabled", budgetTokens: 2000 } },
  }),
  "Vercel AI SDK, Google": features(google, {
    google: { thinkingConfig: { includeThoughts: true } },
  }),
});

// google-genai, with its automatic calls of functions.
import { CITY, MODEL, PNG, SYSTEM, collect, serve, weather, wordsOfError } from "./serve.mjs";
import { client } from "./set_google_genai_javascript.mjs";

const ask = (contents, config) =>
  client.models.generateContent({ model: MODEL, contents, config });
const json = {
  responseMimeType: "application/json",
  responseJsonSchema: {
    type: "object",
    properties: { result: { type: "integer" } },
    required: ["result"],
  },
};
const tool = {
  tool: async () => ({
    functionDeclarations: [
      { name: "weather", description: "Tells the weather.", parametersJsonSchema: CITY },
    ],
  }),
  callTool: async (calls) =>
    calls.map(({ id, name, args }) => ({
      functionResponse: { id, name, response: { output: weather(args) } },
    })),
};

serve({
  "google-genai, JavaScript": {
    answer: async () => (await ask("Hello", { systemInstruction: SYSTEM })).text,
    stream: async () =>
      collect(
        await client.models.generateContentStream({ model: MODEL, contents: "Count" }),
        (piece) => piece.text,
      ),
    tools: async () => (await ask("Weather?", { tools: [tool] })).text,
    structured: async () => JSON.parse((await ask("2 + 2", json)).text),
    thoughts: async () => {
      const answered = await ask("2 + 2", { thinkingConfig: { includeThoughts: true } });
      const [thought] = answered.candidates[0].content.parts;
      return [thought.text, answered.text];
    },
    picture: async () => {
      const picture = { inlineData: { mimeType: "image/png", data: PNG } };
      return (await ask([{ text: "What is it?" }, picture])).text;
    },
    error: () => wordsOfError(() => ask("Hello")),
  },
});

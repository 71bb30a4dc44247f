// What every program in JavaScript shares: it does what it is told, line by line.
import { createInterface } from "node:readline";

export const MODEL = process.env.MODEL;
export const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ";
export const PICTURE = `data:image/png;base64,${PNG}`;
export const SYSTEM = "Be brief.";
export const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const weather = ({ city }) => `Sunny in ${city}.`;

export async function serve(clients) {
  // Libraries print.
  console.log = console.info = console.warn = console.error;
  for await (const line of createInterface({ input: process.stdin })) {
    const { client, feature } = JSON.parse(line);
    let said;
    try {
      said = { result: await clients[client][feature]() };
    } catch (error) {
      said = { failed: String(error?.stack ?? error) };
    }
    process.stdout.write(JSON.stringify(said) + "\n");
  }
}

export async function wordsOfError(ask) {
  try {
    return `no error: ${await ask()}`;
  } catch (error) {
    return String(error);
  }
}

export async function collect(pieces, text) {
  const texts = [];
  for await (const piece of pieces) texts.push(text(piece) ?? "");
  return texts;
}

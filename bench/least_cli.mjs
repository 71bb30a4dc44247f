#!/usr/bin/env node
// The least that a Node program does in the place of the Gemini CLI: a line on its input is a request
// to the address in its environment, and a line on its output when that is answered.
import { createInterface } from 'node:readline';

const ask = async ({ prompt }) => {
  const parts = prompt.map(({ text }) => ({ text }));
  const response = await fetch(
    `${process.env.GOOGLE_GEMINI_BASE_URL}/v1beta/models/m:streamGenerateContent?alt=sse`,
    { method: 'POST', body: JSON.stringify({ contents: [{ role: 'user', parts }] }) },
  );
  await response.text();
  return { stopReason: response.ok ? 'end_turn' : 'refusal' };
};

let sessions = 0;
const methods = {
  initialize: () => ({ protocolVersion: 1 }),
  'session/new': () => ({ sessionId: `session${++sessions}` }),
  'session/prompt': ask,
};

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, method, params } = JSON.parse(line);
  const result = (await methods[method]?.(params)) ?? {};
  if (id !== undefined) process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, result })}\n`);
});

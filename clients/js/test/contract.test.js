// The contract of the server against what the client makes of it.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { LIVE } from "../dist/merge.js";

test("every change of a channel that the server numbers is told by a stream", async () => {
  const contract = await readFile(new URL("../dist/imks.d.ts", import.meta.url), "utf8");
  const [events] = contract.match(/^export interface ServerToClientEvents \{.*?^\}/ms);
  const isNumbered = (type) => {
    const declaration = contract.match(new RegExp(`^export type ${type} = \\{.*?^\\};`, "ms"));
    return declaration?.[0].includes("\n  rev: number;");
  };
  const all = [...events.matchAll(/"(.+?)": \(payload: (\w+)\)/g)];
  const numbered = all.filter(([, , type]) => isNumbered(type)).map(([, event]) => event);
  assert.ok(numbered.length >= 7);
  for (const event of numbered) assert.ok(LIVE.includes(event), `src/merge.ts does not know ${event}`);
});

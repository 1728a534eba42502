// The stock client in a real browser, over a WebSocket with permessage-deflate, which browsers offer by themselves. The
// server echoes; see tests/transport/browser.rs.
import assert from "node:assert/strict";
import { browse } from "./chromium.js";
import { PATIENCE_MS, env, tell } from "./client.js";

// Runs in the page.
async function talk({ url, transports, patience }) {
  const socket = io(url, { transports, forceNew: true, reconnection: false });
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("not connected in time")), patience);
    socket.on("connect", resolve);
    socket.on("connect_error", reject);
  });
  const engine = socket.io.engine;
  if (engine.transport.name !== "websocket") await new Promise((resolve) => engine.once("upgrade", resolve));
  const texts = ["small", "héllo €😀 ".repeat(20_000), "x".repeat(500_000)];
  const bytes = new Uint8Array(100_000).map((_, index) => index >> 8);
  const noise = crypto.getRandomValues(new Uint8Array(50_000));
  const back = [];
  for (const value of [...texts, ...texts]) {
    back.push((await socket.timeout(patience).emitWithAck("echo", value)) === value);
  }
  for (const value of [bytes, noise]) {
    const same = new Uint8Array(await socket.timeout(patience).emitWithAck("echo", value));
    back.push(same.length === value.length && same.every((byte, index) => byte === value[index]));
  }
  const { extensions } = engine.transport.ws;
  socket.close();
  return { extensions, back };
}

await browse(async (page) => {
  for (const transports of [["websocket"], ["polling", "websocket"]]) {
    const { extensions, back } = await page.evaluate(talk, { url: env("URL"), transports, patience: PATIENCE_MS });
    assert.equal(extensions, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
    assert.deepEqual(back, Array(8).fill(true));
  }
  tell({ done: true });
});

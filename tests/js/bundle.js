// A page that takes the client from the server itself, as `/socket.io/socket.io.js`; see tests/dialect_tests.rs. JSONP: the
// client is that of Socket.IO 2 and polls with script elements.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { get } from "node:http";
import { gunzipSync } from "node:zlib";
import { browse } from "./chromium.js";
import { PATIENCE_MS, env, tell } from "./client.js";

const url = env("URL");
const { JSONP } = process.env;
const DIST = `./node_modules/${JSONP ? "socket.io-client-2" : "socket.io-client"}/dist`;

const fetched = (path, headers) =>
  new Promise((resolve, reject) => {
    get(`${url}${path}`, { headers }, async (answer) => {
      const parts = [];
      for await (const part of answer) parts.push(part);
      resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) });
    }).on("error", reject);
  });

// Every file as it is, compressed, and not at all where the client has it already.
async function is_served(name) {
  const [path, file] = [`/socket.io/${name}`, await readFile(new URL(`${DIST}/${name}`, import.meta.url))];
  const plain = await fetched(path, {});
  assert.equal(plain.status, 200);
  assert.match(plain.headers["content-type"], name.endsWith(".map") ? /^application\/json/ : /^application\/javascript/);
  assert.ok(plain.body.equals(file), name);
  const packed = await fetched(path, { "accept-encoding": "gzip" });
  assert.equal(packed.headers["content-encoding"], "gzip");
  assert.ok(packed.body.length < file.length / 2 && gunzipSync(packed.body).equals(file), name);
  assert.equal(packed.headers.etag, plain.headers.etag);
  const known = await fetched(path, { "if-none-match": plain.headers.etag });
  assert.deepEqual([known.status, known.body.length], [304, 0]);
}

// Runs in the page.
async function talk({ source, options, patience }) {
  const socket = window[source]({ forceNew: true, ...options });
  const heard = (event, emitter = socket) =>
    new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`no answer in time: ${source} ${event}`)), patience);
      emitter.once(event, resolve);
    });
  const ask = (...args) =>
    new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`no answer in time: ${source} ${args[0]}`)), patience);
      socket.emit(...args, (...answer) => resolve(answer));
    });
  await heard("connect");
  const transport = socket.io.engine.transport.name;
  const polls = document.querySelectorAll('script[src*="j="]').length;
  const values = await ask("message-with-ack", "héllo €😀\u2028\\\"'", { a: [1, null] });
  const [bytes] = await ask("message-with-ack", new Uint8Array([0, 1, 254, 255]).buffer);
  await ask("join", "room");
  const [shared] = [heard("shared"), socket.emit("share", "room", "x".repeat(10_000))];
  const told = { transport, polls, values, bytes: [...new Uint8Array(bytes)], shared: (await shared).length };
  if (socket.recovered === false) {
    const back = heard("connect");
    socket.io.engine.close();
    await back;
    told.recovered = socket.recovered;
  }
  socket.close();
  return told;
}

const EXPECTED = { values: ["héllo €😀\u2028\\\"'", { a: [1, null] }], bytes: [0, 1, 254, 255], shared: 10_000 };

for (const name of JSONP ? ["socket.io.js"] : ["socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.js.map"]) {
  await is_served(name);
}
await browse(async (page) => {
  await page.goto(`${url}/page`);
  if (JSONP) {
    const options = { transports: ["polling"], forceJSONP: true, reconnection: false };
    const talked = await page.evaluate(talk, { source: "io", options, patience: PATIENCE_MS });
    assert.ok(talked.polls > 0, "it polls with script elements");
    assert.deepEqual(talked, { ...EXPECTED, transport: "polling", polls: talked.polls });
    return;
  }
  await page.waitForFunction(() => window.esm);
  for (const [source, transport] of [["io", "polling"], ["esm", "websocket"]]) {
    const options = { transports: [transport], reconnectionDelay: 50 };
    const talked = await page.evaluate(talk, { source, options, patience: PATIENCE_MS });
    assert.deepEqual(talked, { ...EXPECTED, transport, polls: 0, recovered: true });
  }
  const sizes = () => {
    const [entry] = performance.getEntriesByType("resource").filter(({ name }) => name.endsWith("/socket.io.js"));
    return { decoded: entry.decodedBodySize, encoded: entry.encodedBodySize, transferred: entry.transferSize };
  };
  const first = await page.evaluate(sizes);
  assert.ok(first.encoded < first.decoded / 2, "a browser gets it compressed");
  await page.reload();
  const again = await page.evaluate(sizes);
  if (process.env.VERBOSE) console.error(first, again);
  assert.ok(again.transferred < 1_000, "a browser that has it gets no more than a head");
  
});
tell({ done: true });

// One conversation in the words of tests/dialect_tests.rs, with the client that DIALECT names: `v2` is
// socket.io-client 2.5 (Engine.IO 3), `v4.0` the first of protocol 5, `msgpack` the current client with the msgpack
// parser, `v5` the current one.
import assert from "node:assert/strict";
import { once } from "node:events";
import { io as current } from "socket.io-client";
import legacy from "socket.io-client-2";
import { io as first } from "socket.io-client-4-0";
import msgpack from "socket.io-msgpack-parser";

const { URL, DIALECT, VIA, OTHER = DIALECT } = process.env;
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };
const PATIENCE_MS = 10_000;
const VALUES = [1, -70_000, 1.5, "é€😀\u2028\u0001", null, [true, [], {}], { a: { b: [1e-7, 2 ** 40] } }, ""];
const BYTES = Buffer.from([0, 1, 4, 127, 128, 255]);

setTimeout(() => { throw new Error("too slow"); }, 4 * PATIENCE_MS).unref();

function open(dialect, path = "/", { auth, via = VIA, ...rest } = {}) {
  const options = { transports: TRANSPORTS[via], forceNew: true, reconnection: false, ...rest };
  if (dialect === "v2") {
    // What newer clients send as `auth` is the namespace's query here.
    const query = auth ? `?${new URLSearchParams(auth)}` : "";
    return legacy(URL + path + query, options);
  }
  const io = dialect === "v4.0" ? first : current;
  return io(URL + path, { ...options, auth, ...(dialect === "msgpack" ? { parser: msgpack } : {}) });
}

const ask = (socket, ...args) =>
  new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`no answer to ${args[0]}`)), PATIENCE_MS).unref();
    socket.emit(...args, (...answer) => resolve(answer));
  });

const heard = async (socket, event) => await once(socket, event, { signal: AbortSignal.timeout(PATIENCE_MS) });

async function upgraded(socket) {
  const engine = (socket.io ?? {}).engine;
  if (VIA === "upgrade" && engine.transport.name !== "websocket") await heard(engine, "upgrade");
}

// Values and bytes go there and back, as event and as answer.
async function talks(socket) {
  socket.emit("message", ...VALUES, BYTES, { deep: [BYTES, Buffer.alloc(0)] });
  assert.deepEqual(await heard(socket, "message-back"), [...VALUES, BYTES, { deep: [BYTES, Buffer.alloc(0)] }]);
  assert.deepEqual(await ask(socket, "message-with-ack", ...VALUES, BYTES), [...VALUES, BYTES]);
  assert.deepEqual(await ask(socket, "message-with-ack"), []);
  const question = new Promise((resolve) => socket.once("question", (text, answer) => resolve([text, answer])));
  const verdict = heard(socket, "verdict");
  socket.emit("ask-me");
  const [text, answer] = await question;
  assert.equal(text, "and you?");
  answer(BYTES, "fine");
  assert.deepEqual(await verdict, [BYTES, "fine"]);
}

// Everybody in a room gets a broadcast, each in its own dialect.
async function shares(one, other) {
  await ask(one, "join", "room");
  await ask(other, "join", "room");
  const [here, there] = [heard(one, "shared"), heard(other, "shared")];
  one.emit("share", "room", "text", BYTES);
  assert.deepEqual(await here, ["text", BYTES]);
  assert.deepEqual(await there, ["text", BYTES]);
}

const main = open(DIALECT);
await heard(main, "connect");
await upgraded(main);
await talks(main);
const [id] = await ask(main, "whoami");
assert.equal(id, main.id);

const guest = open(OTHER);
await heard(guest, "connect");
await shares(main, guest);
await shares(guest, main);
const [found] = await ask(guest, "find", main.id);
assert.equal(found, true);

const custom = open(DIALECT, "/custom", { auth: { token: "a b&c", n: "1" } });
assert.deepEqual(await heard(custom, "auth"), [{ token: "a b&c", n: "1" }]);
assert.equal((await ask(custom, "whoami"))[0], custom.id);
await talks(custom);

const refused = open(DIALECT, "/refusing");
const [error] = await heard(refused, DIALECT === "v2" ? "error" : "connect_error");
assert.equal(DIALECT === "v2" ? error : error.message, "not you");
const unknown = open(DIALECT, "/unknown");
const [nothing] = await heard(unknown, DIALECT === "v2" ? "error" : "connect_error");
assert.equal(DIALECT === "v2" ? nothing : nothing.message, "Invalid namespace");

const leaving = heard(custom, "disconnect");
custom.emit("leave-me");
assert.equal((await leaving)[0], "io server disconnect");

const large = Buffer.alloc(300_000, 7);
assert.deepEqual(await ask(main, "message-with-ack", large), [large]);

for (const socket of [main, guest, custom, refused, unknown]) socket.close();
console.log(JSON.stringify({ done: true }));
process.exit(0);

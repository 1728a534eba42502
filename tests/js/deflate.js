// The stock client on `ws`, against a server with permessage-deflate: what it offers, what comes of it, and how many
// bytes that saves. The events are those of tests/dialect/server.rs.
import assert from "node:assert/strict";
import { once } from "node:events";
import { io } from "socket.io-client";
import { PATIENCE_MS, env, tell } from "./client.js";

const TEXT = "all work and no play ".repeat(10_000);
const BYTES = Buffer.alloc(200_000, 7);
const FEW = 10_000;

const heard = async (socket, event) => await once(socket, event, { signal: AbortSignal.timeout(PATIENCE_MS) });

async function open(perMessageDeflate) {
  const options = { transports: ["websocket"], forceNew: true, reconnection: false };
  if (perMessageDeflate !== undefined) options.perMessageDeflate = perMessageDeflate;
  const socket = io(env("URL"), options);
  await heard(socket, "connect");
  socket.wire = socket.io.engine.transport.ws;
  return socket;
}

// The bytes that went [in, out] meanwhile.
async function counted(socket, act) {
  const { bytesRead, bytesWritten } = socket.wire._socket;
  await act();
  return [socket.wire._socket.bytesRead - bytesRead, socket.wire._socket.bytesWritten - bytesWritten];
}

async function echo(socket, emitter = socket) {
  const back = heard(socket, "message-back");
  emitter.emit("message", TEXT, BYTES);
  assert.deepEqual(await back, [TEXT, BYTES]);
}

const ACCEPTED = [
  undefined,
  true,
  { clientMaxWindowBits: 10 },
  { serverNoContextTakeover: true, clientNoContextTakeover: true },
  { serverMaxWindowBits: 15 },
];
for (const offer of ACCEPTED) {
  const socket = await open(offer);
  assert.ok(socket.wire.extensions.includes("permessage-deflate"), JSON.stringify(offer));
  const agreed = socket.wire._extensions["permessage-deflate"].params;
  assert.ok(agreed.server_no_context_takeover && agreed.client_no_context_takeover, JSON.stringify(agreed));
  for (let round = 0; round < 3; round += 1) {
    const [read, written] = await counted(socket, () => echo(socket));
    assert.ok(read < FEW, `${read} bytes in`);
    // A client without the threshold of the default compresses everything.
    if (offer !== undefined) assert.ok(written < FEW, `${written} bytes out`);
  }
  socket.close();
}

for (const offer of [false, { serverMaxWindowBits: 10 }, { serverMaxWindowBits: 9, clientMaxWindowBits: 9 }]) {
  const socket = await open(offer);
  assert.equal(socket.wire.extensions, "", JSON.stringify(offer));
  const [read, written] = await counted(socket, () => echo(socket));
  assert.ok(read > TEXT.length + BYTES.length && written > TEXT.length + BYTES.length);
  socket.close();
}

// What is said not to be compressed is not, in either direction.
const [one, other] = [await open(true), await open(true)];
const [, written] = await counted(one, () => echo(one, one.compress(false)));
assert.ok(written > TEXT.length + BYTES.length, `${written} bytes out`);
await Promise.all([one, other].map((socket) => socket.timeout(PATIENCE_MS).emitWithAck("join", "room")));
async function shared(event) {
  const both = Promise.all([heard(one, "shared"), heard(other, "shared")]);
  const [read] = await counted(other, async () => {
    one.emit(event, "room", TEXT, BYTES);
    for (const got of await both) assert.deepEqual(got, [TEXT, BYTES]);
  });
  return read;
}
assert.ok((await shared("share")) < FEW);
assert.ok((await shared("share-uncompressed")) > TEXT.length + BYTES.length);
const [read] = await counted(one, async () => {
  const back = heard(one, "message-back");
  one.emit("message-uncompressed", TEXT);
  assert.deepEqual(await back, [TEXT]);
});
assert.ok(read > TEXT.length, `${read} bytes in`);
one.close();
other.close();
tell({ done: true });

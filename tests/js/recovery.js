// The stock client loses its connection and comes back to its session; see tests/dialect_tests.rs. CUT says how: `client`
// closes its own transport, `network` breaks every TCP connection. While it is away nothing gets through. LATE: it stays
// away until the server has forgotten it.
import assert from "node:assert/strict";
import { createConnection, createServer } from "node:net";
import { io } from "socket.io-client";
import { PATIENCE_MS, answer, env, tell } from "./client.js";

const { CUT, VIA, LATE } = process.env;
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };
const MISSED = 20;
const target = new URL(env("URL"));

// Stands between the client and the server.
async function relay() {
  const carried = new Set();
  const server = createServer((near) => {
    if (relayed.broken) return near.destroy();
    const far = createConnection(target.port, target.hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      carried.add(one);
      one.on("error", () => {}).on("close", () => { carried.delete(one); other.destroy(); });
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const relayed = { broken: false, url: `http://127.0.0.1:${server.address().port}`, cut: () => {
    for (const socket of carried) socket.destroy();
  } };
  return relayed;
}

const once = (emitter, event) =>
  answer(new Promise((resolve) => emitter.once(event, (...args) => resolve(args))), event);
const ask = (socket, ...args) => socket.timeout(PATIENCE_MS).emitWithAck(...args);

const wire = await relay();
const options = { transports: TRANSPORTS[VIA], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 100 };
const client = io(wire.url, options);
const log = [];
client.on("connect", () => log.push("connect"));
client.on("shared", (number) => log.push(number));
await once(client, "connect");
if (VIA === "upgrade" && client.io.engine.transport.name !== "websocket") await once(client.io.engine, "upgrade");
assert.equal(client.recovered, false);
await ask(client, "join", "room");
await ask(client, "remember", { colour: "blue" });
const id = client.id;

const other = io(target.href, { ...options, transports: ["websocket"] });
await once(other, "connect");
let sent = 0;
// Everybody in the room gets it; the sender's own copy says that it was sent.
async function share(count) {
  for (let n = 0; n < count; n++) {
    const echo = once(other, "shared");
    other.emit("share", "room", sent++);
    await echo;
  }
}
await ask(other, "join", "room");

async function away() {
  // The next poll is on its way by then: a server that has not seen it has to wait for the heartbeat.
  await ask(other, "recall");
  wire.broken = true;
  const gone = once(client, "disconnect");
  if (CUT === "client") client.io.engine.close();
  else wire.cut();
  const [reason] = await gone;
  assert.match(reason, CUT === "client" ? /^forced close$/ : /^transport (close|error)$/);
  await share(MISSED);
  const known = async () => LATE && (await ask(other, "sessions")) > 1;
  while (await known()) await new Promise((resolve) => setTimeout(resolve, 50));
}

// First without ever having got an event, then after some, then after none in between.
for (const before of LATE ? [1] : [0, 3, 0]) {
  await share(before);
  while (log.filter(Number.isInteger).length < sent) await once(client, "shared");
  const first = sent;
  log.length = 0;
  await away();
  const back = once(client, "connect");
  wire.broken = false;
  await back;
  const missed = Array.from({ length: MISSED }, (_, n) => first + n);
  assert.equal(client.recovered, !LATE);
  assert.equal(client.id === id, !LATE);
  assert.deepEqual(log, LATE ? ["connect"] : [...missed, "connect"], "what was missed comes first, in order, once");
  assert.deepEqual(await ask(client, "recall"), LATE ? null : { colour: "blue" });
  if (LATE) await ask(client, "join", "room");
  log.length = 0;
  await share(2);
  while (log.length < 2) await once(client, "shared");
  assert.deepEqual(log, [sent - 2, sent - 1]);
  if (!LATE) log.push(...Array.from({ length: sent - 2 }, (_, n) => n));
}
client.close();
other.close();
tell({ done: true });
process.exit(0);

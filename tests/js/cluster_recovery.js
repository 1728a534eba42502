// A stock client whose nodes die, one after the other (conformance profile `cluster-recovery`); see
// tests/cluster/recovery.rs, which ends and starts nodes when it is told. URLS: three nodes, separated by commas.
import assert from "node:assert/strict";
import { createConnection, createServer } from "node:net";
import { createInterface } from "node:readline";
import { io } from "socket.io-client";
import { PATIENCE_MS, answer, env, tell } from "./client.js";

const urls = env("URLS").split(",");
const heard = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function order(act, node) {
  tell({ act, node });
  await answer(heard.next(), `${act} ${node}`);
}

// What stands between the client and its node, as a balancer would.
async function relay() {
  const carried = new Set();
  const it = { target: 0, broken: false, cut: () => carried.forEach((socket) => socket.destroy()) };
  const server = createServer((near) => {
    if (it.broken) return near.destroy();
    const { port, hostname } = new URL(urls[it.target]);
    const far = createConnection(port, hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      carried.add(one);
      one.on("error", () => {}).on("close", () => { carried.delete(one); other.destroy(); });
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  it.url = `http://127.0.0.1:${server.address().port}`;
  return it;
}

const once = (emitter, event) =>
  answer(new Promise((resolve) => emitter.once(event, (...args) => resolve(args))), event);
const ask = (socket, ...args) => socket.timeout(PATIENCE_MS).emitWithAck(...args);
const options = { transports: ["websocket"], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };

const wire = await relay();
const client = io(wire.url, options);
const log = [];
client.on("connect", () => log.push("connect"));
client.on("msg", (number) => log.push(number));
await once(client, "connect");
const id = client.id;
await ask(client, "set", { colour: "blue" });
await ask(client, "join", "r");

// Sends from a node, and waits until it is on its way: the sender gets its own.
let sent = 0;
async function send(node, count) {
  const sender = io(urls[node], options);
  await once(sender, "connect");
  await ask(sender, "join", "r");
  for (let n = 0; n < count; n++) {
    const own = once(sender, "msg");
    sender.emit("broadcast", "r", sent++);
    await own;
  }
  sender.close();
}

async function reaches() {
  while (log.filter(Number.isInteger).length < sent) await once(client, "msg");
}

// The client is away while `happens`, and comes back to node `to`.
async function moves(what, to, happens) {
  await reaches();
  log.length = 0;
  const before = sent;
  const gone = once(client, "disconnect");
  wire.broken = true;
  await happens();
  await gone;
  wire.target = to;
  const back = once(client, "connect");
  wire.broken = false;
  await back;
  assert.equal(client.recovered, true, what);
  assert.equal(client.id, id, what);
  const missed = Array.from({ length: sent - before }, (_, n) => before + n);
  assert.deepEqual(log, [...missed, "connect"], `${what}: what was missed comes first, in order, once`);
  assert.deepEqual((await ask(client, "whoami")).recovered, true);
  const [own] = (await ask(client, "fetch", "r")).filter((socket) => socket.id === id);
  assert.deepEqual([own.rooms, own.data], [["r", id].sort(), { colour: "blue" }], what);
  log.splice(0, log.length, ...Array(sent).fill(0));
}

await send(2, 3);
for (let round = 0; round < 2; round++) {
  await moves("its node is killed", 1, async () => {
    await order("kill", 0);
    await send(2, 5);
  });
  await order("start", 0);
  await moves("its node is told to end", 0, async () => {
    await order("term", 1);
    await send(2, 5);
  });
  await order("start", 1);
  await moves("the network is cut", 1, async () => {
    wire.cut();
    await send(0, 5);
  });
  await moves("the node of the other side dies", 0, async () => {
    wire.cut();
    await send(2, 5);
    await order("kill", 2);
  });
  await order("start", 2);
  await send(2, 2);
}
client.close();
tell({ done: true });
process.exit(0);

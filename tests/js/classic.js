// A cluster of imks and Node.js servers on one Redis (conformance profile `cluster --family classic`); see
// tests/cluster/classic.rs. REDIS, PREFIX: what they share. LAYOUT: what the nodes `one`, `two` and `three` are, such as
// `imks,node,imks`. URLS: those of imks, in this order. First the suite of the cluster, then what only such a cluster has.
import assert from "node:assert/strict";
import { Emitter } from "@socket.io/redis-emitter";
import { io as connect } from "socket.io-client";
import { connectRedis, start } from "./classic_server.js";
import { PATIENCE_MS, answer, env, tell } from "./client.js";

const [redis, prefix] = [env("REDIS"), env("PREFIX")];
const imks = env("URLS").split(",");
const nodes = [];
const urls = [];
for (const [index, kind] of env("LAYOUT").split(",").entries()) {
  if (kind === "imks") {
    urls.push(imks.shift());
    continue;
  }
  // One of them sends responses to the channel of the node that has asked.
  const options = { publishOnSpecificResponseChannel: index === 2 };
  nodes.push(await start(redis, prefix, ["one", "two", "three"][index], options));
  urls.push(nodes.at(-1).url);
}
process.env.URLS = urls.join(",");
await import("./cluster.js");

const [node] = nodes;
const near = await client(node.url);
const far = await client(urls.at(env("LAYOUT").split(",").indexOf("imks")));
const ask = (socket, ...args) => socket.timeout(PATIENCE_MS).emitWithAck(...args);

async function client(url) {
  const socket = connect(url, { forceNew: true, transports: ["websocket"], reconnection: false });
  await answer(new Promise((resolve) => socket.once("connect", resolve)), "connect");
  return socket;
}

const next = (socket, event = "msg") =>
  answer(new Promise((resolve) => socket.once(event, (...args) => resolve(args))), event);

// Both clients get what `send` sends, and nobody gets more.
async function both(send) {
  const got = Promise.all([next(near), next(far)]);
  send();
  return got;
}

// How many servers there are, and which rooms.
assert.equal(await node.io.of("/").adapter.serverCount(), 3);
await Promise.all([ask(near, "join", "near room"), ask(far, "join", "far room")]);
const rooms = await node.io.of("/").adapter.allRooms();
for (const room of ["near room", "far room", near.id, far.id]) assert.ok(rooms.has(room), room);

// The handshake of a client of imks has the shape that Node.js servers give it.
const [described] = await node.io.in(far.id).fetchSockets();
assert.deepEqual(Object.keys(described.handshake).sort(), [
  "address", "auth", "headers", "issued", "query", "secure", "time", "url", "xdomain",
]);
assert.equal(described.handshake.address, "127.0.0.1");
assert.equal(described.handshake.query.transport, "websocket");
assert.ok(Math.abs(described.handshake.issued - Date.now()) < 600_000);
assert.ok(Math.abs(new Date(described.handshake.time) - Date.now()) < 600_000);

// Dates, bytes, nothing, and numbers of every size.
const all = [new Date(1_700_000_000_123), new Date(0), null, undefined, 2 ** 40, -1.5, "\u{1f600}", { a: undefined, b: [] }];
const [[atNear], [atFar]] = await both(() => node.io.emit("msg", [Buffer.from([1, 2]), ...all]));
assert.deepEqual(atFar, atNear);
assert.deepEqual(atFar, [Buffer.from([1, 2]), ...JSON.parse(JSON.stringify(all))]);

// Rooms whose names are numbers at the one and texts at the other.
node.io.in(near.id).socketsJoin(7);
await ask(far, "join", "7");
while (![...(await node.io.of("/").adapter.allRooms())].includes(7)) await new Promise((resolve) => setImmediate(resolve));
await both(() => node.io.to(7).emit("msg", "to a number"));
await both(() => far.emit("broadcast", "7", "to a text"));
assert.deepEqual((await ask(far, "fetch", "7")).map(({ id }) => id).sort(), [near.id, far.id].sort());

// Programs that only send.
const publisher = await connectRedis(redis);
const emitter = new Emitter(publisher, { key: prefix });
assert.deepEqual(await both(() => emitter.emit("msg", "to all", new Date(5))), Array(2).fill(["to all", "1970-01-01T00:00:00.005Z"]));
const onlyFar = next(far);
let wrong = 0;
near.on("msg", (text) => { if (text === "not near") wrong += 1; });
emitter.except(near.id).emit("msg", "not near");
assert.deepEqual(await onlyFar, ["not near"]);
emitter.in(["near room", "far room"]).socketsJoin(["joined", "joined too"]);
await both(() => emitter.to("joined too").volatile.emit("msg", "in both"));
emitter.in(far.id).socketsLeave("joined");
const onlyNear = next(near);
emitter.to("joined").emit("msg", "one is left");
assert.deepEqual(await onlyNear, ["one is left"]);
emitter.serverSideEmit("question", "nobody waits for the answer");

// One node that is silent costs one deadline, and its end is noticed.
const silent = await connectRedis(redis);
await silent.subscribe(`${prefix}-request#/#`, () => {});
assert.equal(await node.io.of("/").adapter.serverCount(), 4);
const began = Date.now();
assert.equal((await ask(far, "fetch", null)).length, 2, "who answers is there");
const lasted = Date.now() - began;
assert.ok(lasted > 2_000 && lasted < PATIENCE_MS, `${lasted} ms`);
const asked = await ask(far, "ask_servers", "who is there");
assert.ok(asked.error);
assert.equal(asked.answers.length, 2);
silent.destroy();
while ((await node.io.of("/").adapter.serverCount()) > 3) await new Promise((resolve) => setImmediate(resolve));
assert.equal((await ask(far, "ask_servers", "and now")).error, null);

// The end of clients.
const ended = Promise.all([next(near, "disconnect"), next(far, "disconnect")]);
emitter.disconnectSockets(true);
await ended;
assert.equal(wrong, 0, "nobody gets what is not for them");

await publisher.close();
for (const { close } of nodes) await close();
tell({ done: true });

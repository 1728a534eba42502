// The suite of the cluster on two servers of imks and one of Node.js that share a Redis Cluster, and what needs the count of
// all its masters; see tests/cluster/classic.rs. What a Node.js server sends takes another master each time, so nothing here
// depends on its order. REDIS, PREFIX: what they share. URLS: those of imks.
import assert from "node:assert/strict";
import { Emitter } from "@socket.io/redis-emitter";
import { io } from "socket.io-client";
import { connectRedis, start } from "./classic_server.js";
import { PATIENCE_MS, answer, env, tell } from "./client.js";

const [redis, prefix, [one, three]] = [env("REDIS"), env("PREFIX"), env("URLS").split(",")];
const node = await start(redis, prefix, "two");
const urls = [one, node.url, three];
process.env.URLS = urls.join(",");
await import("./cluster.js");

const sockets = urls.map((url) => io(url, { forceNew: true, transports: ["websocket"], reconnection: false }));
const all = (event) => answer(Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once(event, resolve)))), event);
const ask = (socket, ...args) => socket.timeout(PATIENCE_MS).emitWithAck(...args);
await all("connect");

// Each finds the sockets of all, and asks all servers.
assert.equal(await node.io.of("/").adapter.serverCount(), 3);
for (const socket of sockets) {
  assert.equal((await ask(socket, "fetch", null)).length, 3);
  const { error, answers } = await ask(socket, "ask_servers", "who is there");
  assert.deepEqual([error, answers.length], [null, 2]);
}

// What each sends reaches everybody, and so do programs that only send.
for (const socket of sockets) {
  const heard = all("msg");
  socket.emit("broadcast", null, "from", socket.id);
  assert.deepEqual(await heard, ["from", "from", "from"]);
}
const heard = all("msg");
new Emitter(await connectRedis(redis), { key: prefix }).emit("msg", "from an emitter");
assert.deepEqual(await heard, Array(3).fill("from an emitter"));

// A subscriber at any master counts, and is missed when it has gone.
const silent = await Promise.all([1, 2, 3, 4].map(() => connectRedis(redis)));
await Promise.all(silent.map((client) => client.subscribe(`${prefix}-request#/#`, () => {})));
assert.equal(await node.io.of("/").adapter.serverCount(), 7);
const late = await ask(sockets[0], "ask_servers", "are you all there");
assert.ok(late.error, "four are silent");
assert.equal(late.answers.length, 2);
for (const client of silent) client.destroy();
while ((await node.io.of("/").adapter.serverCount()) > 3) await new Promise((resolve) => setImmediate(resolve));
assert.equal((await ask(sockets[0], "ask_servers", "and now")).error, null);

tell({ done: true });
process.exit(0);

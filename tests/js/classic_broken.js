// Broken and foreign messages on the channels of two nodes of imks (conformance profile `cluster --family classic`); see
// tests/cluster/classic.rs. REDIS, PREFIX: what they share. URLS: the nodes.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { io as connect } from "socket.io-client";
import { connectRedis } from "./classic_server.js";
import { PATIENCE_MS, answer, env, tell } from "./client.js";

const [redis, prefix] = [await connectRedis(env("REDIS")), env("PREFIX")];
const sockets = env("URLS").split(",").map((url) => connect(url, { forceNew: true, transports: ["websocket"], reconnection: false }));
await answer(Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once("connect", resolve)))), "connect");
const [one, two] = sockets;
const ask = (socket, ...args) => socket.timeout(PATIENCE_MS).emitWithAck(...args);
let ends = 0;
for (const socket of sockets) socket.on("disconnect", () => { ends += 1; });

const broken = [
  "", "{", "[", "null", "{}", "\x93", "\xc1",
  '{"uid":"23e42783bef100fc","nsp":"/","type":3,"data":{"packet":{"type":2,"data":["hi"]},"opts":{"rooms":[]}}}',
  '{"type":2,"opts":{"rooms":[],"except":[]}}', '{"type":4}', '{"type":99,"opts":{"rooms":[],"except":[]}}',
  '{"type":5,"requestId":"a"}', '{"type":6,"requestId":"a","data":{}}', '{"type":6,"requestId":"a","data":["connect"]}',
  '{"type":8,"requestId":"a","clientCount":1e300}', '{"type":8,"requestId":"a","clientCount":-1}',
  `{"type":1,"requestId":"${"x".repeat(100_000)}"}`,
  `{"type":2,"opts":{"rooms":[],"except":[]},"rooms":[${Array(100_000).fill('"r"')}]}`,
  `{"type":6,"data":["deep",${"[".repeat(50_000)}${"]".repeat(50_000)}]}`,
].map((text) => Buffer.from(text, "latin1"));
for (let n = 0; n < 50; n++) broken.push(randomBytes(100));
for (const channel of [`${prefix}#/#`, `${prefix}#/#r#`, `${prefix}-request#/#`, `${prefix}-response#/#`]) {
  for (const message of broken) await redis.publish(channel, message);
}

// Both nodes still hear each other, in the same cluster.
assert.equal((await ask(one, "fetch", null)).length, 2);
await ask(two, "join", "r");
const got = answer(new Promise((resolve) => two.once("msg", resolve)), "msg");
one.emit("broadcast", "r", "still there");
assert.equal(await got, "still there");
assert.equal(ends, 0);
sockets.forEach((socket) => socket.close());
await redis.close();
tell({ done: true });

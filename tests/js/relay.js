// Two stock clients behind a balancer that sends every request to another node; see tests/cluster/relay.rs.
import assert from "node:assert/strict";
import { connect, env, events, must, tell } from "./client.js";

const [url, via] = [env("URL"), env("VIA")];
const [alice, bob] = await Promise.all(
  [env("TOKEN_ALICE"), env("TOKEN_BOB")].map((token) => connect(url, token, { via })),
);
const ended = [];
for (const socket of [alice, bob]) socket.on("disconnect", (reason) => ended.push(reason));
const channel_id = alice.session.channels[0].channel_id;
const bodies = [];
for (let n = 0; n < 20; n++) {
  for (const socket of [alice, bob]) {
    const body = `${n} é€😀 ${"x".repeat(n % 5 === 4 ? 7_000 : n + 1)}`;
    await must(socket, "message:send", { channel_id, body });
    bodies.push(body);
  }
}
for (const socket of [alice, bob]) {
  const got = await events(socket, "message:new", bodies.length);
  assert.deepEqual(got.map(({ body }) => body), bodies);
}
// Many at once, so that requests of one client overlap as far as they may.
await Promise.all([...Array(30).keys()].map((n) => must(alice, "message:send", { channel_id, body: `burst ${n}` })));
await events(bob, "message:new", bodies.length + 30);
assert.deepEqual(ended, []);
assert.equal(alice.io.engine.transport.name, via === "polling" ? "polling" : "websocket");
alice.close();
bob.close();
tell({ done: true });

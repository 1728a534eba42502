// Stock clients of a server whose core is written in another language; see tests/contract_tests.rs. The test passes
// what we ask for on to the core, and tells us when it is done.
import assert from "node:assert/strict";
import { once } from "node:events";
import { answer, ask, client, connect, env, events, must, refuses, tell, words } from "./client.js";

const url = env("URL");
const tokens = JSON.parse(env("TOKENS"));
const hears = words();
const change = async (word) => {
  tell({ wants: word });
  await hears(word);
  return performance.now();
};

const [alice, bob, carol, mallory] = await Promise.all(
  ["alice", "bob", "carol", "mallory"].map((name) => connect(url, tokens[name])),
);
const [{ channel_id, name }] = alice.session.channels;
assert.equal(name, "lobby");
assert.deepEqual(mallory.session.channels, [], "who is no member sees nothing");
const [header, claims] = tokens.alice.split(".");
const forged = client(url, [header, claims, tokens.bob.split(".").at(-1)].join(".")).connect();
const [refusal] = await answer(once(forged, "connect_error"), "the refusal of a forged token");
assert.equal(refusal.data.code, "unauthenticated");

const { message } = await must(alice, "message:send", { channel_id, body: "hello" });
for (const socket of [alice, bob, carol]) {
  assert.deepEqual(await events(socket, "message:new", 1), [message]);
}
assert.equal(message.author.username, "alice");
await must(bob, "message:send", { channel_id, body: "hello alice" });
await refuses(carol, "forbidden", "message:send", { channel_id, body: "may I?" });
assert.equal((await must(carol, "history", { channel_id })).messages.length, 2);
await refuses(mallory, "not_found", "message:send", { channel_id, body: "knock" });
await refuses(mallory, "not_found", "history", { channel_id });

if (env("STREAMS") === "yes") {
  const muted = await change("mute");
  while ((await ask(bob, "message:send", { channel_id, body: "still here" })).ok);
  assert.ok(performance.now() - muted < 1000, "a permission is gone within a second");
  await must(bob, "history", { channel_id });

  const left = once(bob, "channel:left");
  await change("remove");
  assert.deepEqual(await answer(left, "channel:left"), [{ channel_id, reason: "removed" }]);
  await refuses(bob, "not_found", "history", { channel_id });
}

await change("away");
await must(alice, "message:send", { channel_id, body: "what is known goes on" });
const later = client(url, tokens.carol);
const arrived = once(later, "session:ready");
later.connect();
await change("back");
const [session] = await answer(arrived, "the session of a client that came while the core was away");
assert.deepEqual(session.channels.map((it) => it.channel_id), [channel_id]);

if (env("STREAMS") === "yes") {
  const revoked = once(alice, "auth:revoked");
  await change("revoke");
  await answer(revoked, "auth:revoked");
  const again = client(url, tokens.alice).connect();
  const [refusal] = await answer(once(again, "connect_error"), "the refusal of a revoked token");
  assert.equal(refusal.data.code, "token_revoked");
}
for (const socket of [alice, bob, carol, mallory, forged, later]) socket.close();
tell({ done: true });

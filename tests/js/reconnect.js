// A server that goes away and comes back: the client returns by itself and learns what it missed.
import assert from "node:assert/strict";
import { once } from "node:events";
import { answer, connect, env, events, must, tell, words } from "./client.js";

const url = env("URL");
const word = words();
const alice = await connect(url, env("TOKEN_ALICE"), { via: env("VIA") });
const channel_id = alice.session.channels[0].channel_id;
const first = await must(alice, "message:send", { channel_id, body: "before" });
await events(alice, "message:new", 1);
const reasons = [];
alice.on("disconnect", (reason) => reasons.push(reason));
const ready = once(alice, "session:ready");

tell({ connected: true });
await word("restarted");
const [session] = await answer(ready, "the new session");
assert.equal(reasons.length, 1);
// After "io server disconnect" the official client would not come back by itself.
assert.ok(["transport close", "transport error", "ping timeout"].includes(reasons[0]), reasons[0]);
assert.equal(alice.recovered, session.resumed);
// A crash may have come before the server had stored that the client has the message: then the session is a new one.
if (session.resumed) assert.deepEqual(session.channels, [], "the channel is where it was");
else assert.equal(session.channels[0].last_seq, first.message.seq, "what was acknowledged is still there");
await must(alice, "message:send", { channel_id, body: "after" });
const { channels } = await must(alice, "sync", { channels: [{ channel_id, seq: 0, rev: 0 }] });
assert.deepEqual(channels[0].messages.map((message) => message.body), ["before", "after"]);
alice.close();
tell({ done: true });

// A stock client that connects while the core is away: it comes in by itself, however long that takes.
import assert from "node:assert/strict";
import { answer, client, env, tell, words } from "./client.js";

const word = words();
const alice = client(env("URL"), env("TOKEN_ALICE"), { via: env("VIA") });
const refusals = [];
alice.on("connect_error", ({ message, data }) => refusals.push([message, data]));
const ready = new Promise((resolve) => alice.once("session:ready", resolve));
let ended;
const transport = new Promise((resolve) => { ended = resolve; });
alice.io.on("close", ended);
alice.connect();

await answer(transport, "the end of the transport");
assert.deepEqual(refusals, [], "no connect_error: a stock client would stay away after it");
assert.equal(alice.active, true);
tell({ held: true });
await word("back");
const session = await answer(ready, "the session after the outage");
assert.equal(session.user.username, "alice");
alice.close();
tell({ done: true });

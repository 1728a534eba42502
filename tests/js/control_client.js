// A stock client that hears what a back end does; see tests/contract/control.rs.
import assert from "node:assert/strict";
import { connect, env, events, tell, words } from "./client.js";

const hears = words();
const alice = await connect(env("URL"), env("TOKEN_ALICE"));
const [{ channel_id }] = alice.session.channels;
tell({ channel: channel_id });
await hears("acted");
const [message] = await events(alice, "message:new", 1);
assert.deepEqual([message.body, message.type, message.author.username], ["build 7 is done", "bot", "Build"]);
assert.deepEqual(await events(alice, "app:release", 1), [{ version: 7 }]);
alice.close();
tell({ done: true });

// Users of an application with its own login chat through imks, with its token and the official client.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { answer, connect, env, events, must, tell } from "./client.js";
import { application } from "./own_login_app.js";

const { listening, url: app } = await application(env("PUBLIC_KEY_FILE"), {});
const login = async (email) => {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ email, password: "secret" });
  const response = await fetch(`${app}/login`, { method: "POST", headers, body });
  return (await response.json()).token;
};

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
tell({ listening: true });
const { value: url } = await lines.next();

const ada = await connect(url, await login("ada@example.com"), { via: "upgrade" });
const bob = await connect(url, await login("bob@example.com"));
assert.equal(ada.session.user.username, "Ada Lovelace");
const [{ channel_id, name }] = ada.session.channels;
assert.equal(name, "support");
await must(ada, "message:send", { channel_id, body: "hello" });
const [message] = await events(bob, "message:new", 1);
assert.equal(message.author.username, "Ada Lovelace");

// With a function for `auth`, a stock client gets a new token for every connect, so an old one never matters.
const again = once(ada, "session:ready");
ada.auth = async (give) => give({ token: await login("ada@example.com"), protocol: 1 });
ada.io.engine.close();
const [session] = await answer(again, "the session after a reconnect");
assert.equal(session.user.id, ada.session.user.id);

ada.close();
bob.close();
listening.close();
tell({ done: true });

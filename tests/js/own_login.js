// A web application with its own login (Express, a JWT per session) whose users chat through imks. The
// application's token is the only thing that the two share.
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import express from "express";
import jwt from "jsonwebtoken";
import { answer, connect, env, events, must, tell } from "./client.js";

const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
writeFileSync(env("PUBLIC_KEY_FILE"), publicKey.export({ type: "spki", format: "pem" }));

const users = new Map([["ada@example.com", { id: 1, name: "Ada Lovelace" }], ["bob@example.com", { id: 2, name: "Bob" }]]);
const app = express();
app.use(express.json());
app.post("/login", ({ body }, response) => {
  const user = users.get(body.email);
  if (!user || body.password !== "secret") return response.sendStatus(401);
  const claims = { name: user.name, channels: ["support"] };
  response.json({ token: jwt.sign(claims, privateKey, { algorithm: "RS256", subject: `${user.id}`, expiresIn: "1h" }) });
});
const listening = app.listen(0, "127.0.0.1");
await once(listening, "listening");
const login = async (email) => {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ email, password: "secret" });
  const response = await fetch(`http://127.0.0.1:${listening.address().port}/login`, { method: "POST", headers, body });
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

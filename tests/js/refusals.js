// Tokens that must not open a session: each gives a connect_error with a stable code.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { PATIENCE_MS, answer, client, connect, env, tell } from "./client.js";

const url = env("URL");
const via = env("VIA");
const good = env("TOKEN_ALICE");
const [header, payload, signature] = good.split(".");
const decode = (part) => JSON.parse(Buffer.from(part, "base64url"));
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

async function refused(token, codes, what) {
  const socket = client(url, token, { via, reconnection: false });
  const error = answer(once(socket, "connect_error"), what);
  socket.connect();
  const [{ message, data }] = await error;
  assert.equal(typeof message, "string");
  assert.ok(data && codes.includes(data.code), `${what}: ${message} ${JSON.stringify(data)}`);
  assert.equal(data.retryable, false, `${what}: trying again with the same token is useless`);
  assert.equal(socket.connected, false);
  socket.close();
}

const wrong = ["unauthenticated"];
await refused(undefined, wrong, "no token");
await refused("", wrong, "an empty token");
await refused("not a token", wrong, "no token at all");
await refused(`${header}.${payload}.${"A".repeat(signature.length)}`, wrong, "a forged signature");
await refused(`${header}.${encode({ ...decode(payload), sub: "0190aaaa-0000-7000-8000-000000000000" })}.${signature}`,
  wrong, "a changed user");
await refused(`${encode({ ...decode(header), alg: "none" })}.${payload}.`, wrong, "no algorithm");
const hmac = `${encode({ ...decode(header), alg: "HS256" })}.${payload}`;
const mac = createHmac("sha256", "imks").update(hmac).digest("base64url");
await refused(`${hmac}.${mac}`, wrong, "a symmetric algorithm");
await refused(42, wrong, "a number");

// A token that ends is refused for that reason.
async function expires(token) {
  for (let start = Date.now(); Date.now() - start < PATIENCE_MS; ) {
    const socket = client(url, token, { via, reconnection: false });
    const outcome = Promise.race([once(socket, "session:ready"), once(socket, "connect_error")]);
    socket.connect();
    const [{ data }] = await answer(outcome, "an outcome");
    socket.close();
    if (data) return assert.equal(data.code, "token_expired");
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  assert.fail("a token that has ended still opens sessions");
}
await expires(env("TOKEN_SHORT"));

// The neighbours notice nothing.
const alice = await connect(url, good, { via });
assert.equal(alice.connected, true);
const elsewhere = alice.io.socket("/elsewhere");
const [error] = await answer(once(elsewhere.connect(), "connect_error"), "an unknown namespace");
assert.equal(error.message, "Invalid namespace");
assert.equal(alice.connected, true);
alice.close();
tell({ done: true });

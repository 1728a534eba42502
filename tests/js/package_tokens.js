// What @imks/client does about tokens and refusals. We are told a token that lasts for some seconds; the server warns of its
// end at once.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { answer, env, tell } from "./client.js";
import { client, state } from "./package_reader.js";

const url = env("URL");
const good = env("TOKEN_ALICE");
tell({ ready: true });
const { value: short } = await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next();
const expired = (at) => new Promise((resolve) => setTimeout(resolve, Math.max(0, at - Date.now())));
const end = Number(JSON.parse(Buffer.from(short.split(".")[1], "base64url")).exp) * 1_000;

// A function is asked before every attempt, and before its token ends.
async function a_token_that_is_about_to_expire_is_replaced() {
  const asked = [];
  const alice = client(url, async (reason) => (asked.push(reason), reason === "connect" ? short : good));
  const session = await answer(alice.connect(), "the session");
  let refreshed;
  const later = new Promise((resolve) => (refreshed = resolve));
  alice.socket.onAnyOutgoing((event) => event === "auth:refresh" && refreshed());
  if (!asked.includes("expiring")) await answer(later, "auth:refresh");
  await expired(Date.parse(session.token_expires_at) + 100);
  await alice.request("ping", {});
  assert.deepEqual([asked, alice.state], [["connect", "expiring"], "connected"]);
  alice.socket.io.engine.close();
  await state(alice, "reconnecting");
  alice.close();
}

// The connection ends with its token; another one brings the user back.
async function a_token_that_could_not_be_replaced_in_time_is_replaced_afterwards() {
  const asked = [];
  const alice = client(url, async (reason) => {
    asked.push(reason);
    if (reason === "expiring") throw new Error("the identity provider is away");
    return reason === "connect" ? short : good;
  });
  await answer(alice.connect(), "the session");
  const { error } = await state(alice, "reconnecting");
  assert.equal(error.code, "token_expired");
  await state(alice, "connected");
  assert.deepEqual([...new Set(asked)], ["connect", "expiring", "expired"]);
  assert.ok(asked.length > 3, "it was asked more than once before the end");
  alice.close();
}

// A text cannot be replaced.
async function a_fixed_token_ends_with_its_connection() {
  const alice = client(url, short);
  const { channels } = await answer(alice.connect(), "the session");
  const stream = alice.channel(channels[0].channel_id).messages();
  const { error } = await state(alice, "refused");
  assert.equal(error.code, "token_expired");
  await assert.rejects(answer(stream.next(), "the end"), { code: "token_expired" });
  alice.close();
}

async function an_expired_token_is_asked_for_anew() {
  await expired(end + 100);
  const asked = [];
  const alice = client(url, async (reason) => (asked.push(reason), reason === "expired" ? good : short));
  const { user } = await answer(alice.connect(), "the session");
  assert.deepEqual([asked, user.username], [["connect", "expired"], "alice"]);
  alice.socket.io.engine.close();
  await state(alice, "reconnecting");
  await state(alice, "connected");
  assert.deepEqual(asked.slice(0, 3), ["connect", "expired", "connect"], "asked before every attempt");
  alice.close();
}

async function a_function_that_has_only_expired_tokens_is_asked_a_few_times() {
  let asked = 0;
  const alice = client(url, () => (asked++, short));
  await assert.rejects(answer(alice.connect(), "the refusal"), { code: "token_expired" });
  assert.equal(asked, 4);
  alice.close();
}

async function a_function_that_fails_is_asked_again() {
  const answers = [new Error("the identity provider is away"), good];
  const errors = [];
  const alice = client(url, async () => {
    const token = answers.shift();
    if (token instanceof Error) throw token;
    return token;
  });
  alice.on("state", ({ error }) => error && errors.push([error.code, error.cause.message]));
  await answer(alice.connect(), "the session");
  assert.deepEqual(errors, [["token_failed", "the identity provider is away"]]);
  alice.close();
}

async function a_final_refusal_says_why_and_ends_what_waits() {
  const changes = [];
  const nobody = client(url, "not a token", { autoConnect: false });
  nobody.on("state", ({ state, error }) => changes.push([state, error?.code]));
  const { channels } = await lookup();
  const channel = nobody.channel(channels[0].channel_id);
  const reading = channel.messages().next();
  const sending = channel.send({ body: "later" });
  await assert.rejects(answer(nobody.connect(), "the refusal"), { code: "unauthenticated", retryable: false });
  await assert.rejects(answer(reading, "the end"), { code: "unauthenticated" });
  await assert.rejects(nobody.request("ping", {}), { code: "unauthenticated" });
  assert.deepEqual(changes, [["connecting", undefined], ["refused", "unauthenticated"]]);
  assert.equal(channel.waiting().length, 1, "what waits to be sent is kept");
  nobody.close();
  await assert.rejects(sending, { code: "closed" });
}

async function a_server_that_cannot_be_reached_is_tried_as_often_as_the_application_wants() {
  const alice = client("http://127.0.0.1:1", good, { reconnectionAttempts: 2 });
  const delays = [];
  alice.on("state", ({ delayMs }) => delayMs !== undefined && delays.push(delayMs));
  await assert.rejects(answer(alice.connect(), "the refusal"), { code: "unreachable", retryable: true });
  assert.equal(delays.length, 2);
  alice.close();
}

async function errors_have_a_code() {
  const alice = client(url, good);
  const { channels } = await answer(alice.connect(), "the session");
  const body = { channel_id: channels[0].channel_id, body: "" };
  const refused = await alice.request("message:send", body).catch((error) => error);
  const { code, retryable, details, requestId } = refused;
  assert.deepEqual([code, retryable, details.field, typeof requestId], ["invalid_input", false, "body", "string"]);
  await assert.rejects(answer(alice.channel(body.channel_id).send({ body: "" }), "the refusal"), { code: "invalid_input" });
  alice.close();
}

async function lookup() {
  const alice = client(url, good);
  const session = await answer(alice.connect(), "the session");
  alice.close();
  return session;
}

await Promise.all([
  a_token_that_is_about_to_expire_is_replaced(),
  a_token_that_could_not_be_replaced_in_time_is_replaced_afterwards(),
  a_fixed_token_ends_with_its_connection(),
]);
for (const part of [
  an_expired_token_is_asked_for_anew,
  a_function_that_has_only_expired_tokens_is_asked_a_few_times,
  a_function_that_fails_is_asked_again,
  a_final_refusal_says_why_and_ends_what_waits,
  a_server_that_cannot_be_reached_is_tried_as_often_as_the_application_wants,
  errors_have_a_code,
]) {
  await part();
}
tell({ done: true });
process.exit(0);

// The readers of several channels, with a server that answers what the test says.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ImksError } from "../dist/index.js";
import { Readers } from "../dist/readers.js";
import { Connection } from "./connection.js";

const HEAD = { last_seq: 0, rev: 0, last_message_id: null, horizon_seq: 0 };
const NOTHING = { messages: [], changes: [], seq: 0, rev: 0, truncated: false, reset: false, horizon_seq: 0, horizon_id: null };

// Knows every channel, unless `refuse` throws (all channels of the request) or returns an error (of one of them).
function world(refuse = () => null) {
  const connection = new Connection((event, { channel_ids, channels }) => {
    const ids = channel_ids ?? channels.map((channel) => channel.channel_id);
    const errors = new Map(ids.map((id) => [id, refuse(id, event)]));
    if (event === "sync") return { channels: ids.map((channel_id) => ({ channel_id, ...NOTHING })), removed_channels: [] };
    return { channels: ids.map((channel_id) => ({ channel_id, ...HEAD, error: errors.get(channel_id) })) };
  });
  return { connection, readers: new Readers(connection) };
}

// Lets everything happen that waits for nothing but answers.
async function settle() {
  for (let turns = 0; turns < 100; turns++) await new Promise(setImmediate);
}

async function state(promise) {
  const waiting = Symbol("waiting");
  const first = await Promise.race([promise.then(() => "done", ({ code }) => code), settle().then(() => waiting)]);
  return first === waiting ? "waiting" : first;
}

test("a channel that does not exist holds up none of the others", async () => {
  const { readers } = world((id) => {
    if (id === "nonsense") throw new ImksError("invalid_input", "no id");
  });
  const streams = ["a", "nonsense", "b", "nonsense", "c"].map((id) => readers.open(id, {}).ready());
  const found = await Promise.all(streams.map(state));
  assert.deepEqual(found, ["done", "invalid_input", "done", "invalid_input", "done"]);
});

test("a channel that is not ready yet waits by itself", async () => {
  const failing = { "channel:subscribe": "later" };
  const error = { code: "unavailable", message: "later", retryable: true, retry_after_ms: 60_000 };
  const { readers, connection } = world((id, event) => (failing[event] === id ? error : null));
  const [a, later, b] = ["a", "later", "b"].map((id) => readers.open(id, {}).ready());
  assert.deepEqual([await state(a), await state(b), await state(later)], ["done", "done", "waiting"]);
  const asked = connection.asked.length;
  connection.tell("sync:required", { channel_ids: ["a"] });
  await settle();
  assert.deepEqual(connection.asked.slice(asked).map(([event]) => event), ["sync"], "it is asked at once");
  connection.tell("state", { state: "closed" });
  await assert.rejects(later, { code: "closed" });
});

test("channels that are not ready yet are asked for together again", async () => {
  let isReady = false;
  const error = { code: "unavailable", message: "later", retryable: true, retry_after_ms: 20 };
  const { readers, connection } = world(() => (isReady ? null : error));
  const { session } = connection;
  connection.session = null;
  const ready = ["a", "b", "c", "d"].map((id) => readers.open(id, {}).ready());
  connection.session = session;
  connection.tell("state", { state: "connected" });
  await settle();
  isReady = true;
  await Promise.all(ready);
  const joins = connection.asked.filter(([event]) => event === "channel:subscribe");
  assert.equal(joins.at(-1)[1].channel_ids.length, 4);
});

test("what is missing is fetched although somebody opens wrong channels without end", async () => {
  const { readers, connection } = world((id) => {
    if (id === "nonsense") throw new ImksError("invalid_input", "no id");
  });
  await readers.open("a", {}).ready();
  await settle();
  let isOpen = true;
  const again = async () => {
    while (isOpen) await readers.open("nonsense", {}).ready().catch(() => {});
  };
  const opening = Array.from({ length: 3 }, again);
  const asked = connection.asked.length;
  connection.tell("sync:required", { channel_ids: ["a"] });
  await settle();
  isOpen = false;
  const place = connection.asked.slice(asked).findIndex(([event]) => event === "sync");
  assert.ok(place >= 0 && place <= 2, `${place} other requests came first`);
  await Promise.all(opening);
});

test("streams that were asked for alone are asked for together again", async () => {
  const { readers, connection } = world((id) => {
    if (id === "nonsense") throw new ImksError("invalid_input", "no id");
  });
  const streams = ["a", "b", "nonsense", "c"].map((id) => readers.open(id, {}).ready());
  await Promise.allSettled(streams);
  await settle();
  const asked = connection.asked.length;
  connection.session = { ...connection.session };
  connection.tell("state", { state: "connected" });
  await settle();
  assert.deepEqual(connection.asked.slice(asked).map(([event]) => event), ["channel:subscribe", "sync"]);
});

test("a stream that is ended while its beginning is fetched tells nothing", async () => {
  const connection = new Connection(async (event) => {
    if (event === "channel:subscribe") return { channels: [{ channel_id: "a", ...HEAD }] };
    await stream.return();
    return { messages: [{ id: "0190a8c0-0000-7000-8000-000000000001", seq: 1, stream: null }] };
  });
  const stream = new Readers(connection).open("a", { from: { last: 1 } });
  await settle();
  assert.deepEqual(connection.asked.map(([event]) => event), ["channel:subscribe", "history"]);
  assert.deepEqual([stream.waiting, await stream.next()], [0, { done: true, value: undefined }]);
});

test("whoever waits for the place of a stream hears why there is none, also after a reader has heard it", async () => {
  const { readers } = world(() => ({ code: "not_found", message: "no such channel", retryable: false }));
  const stream = readers.open("a", {});
  assert.deepEqual(await Promise.all([stream.next(), stream.ready()].map(state)), ["not_found", "not_found"]);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test("settings that are there and undefined are the defaults", async () => {
  const { readers } = world();
  const stream = readers.open("a", { from: undefined, gaps: undefined, buffer: undefined });
  assert.deepEqual(await stream.ready(), { seq: 0, rev: 0, id: null });
});

test("a stream that is opened when the client is kept out ends with the reason", async () => {
  const { readers, connection } = world();
  Object.assign(connection, { state: "refused", session: null, refusal: new ImksError("token_revoked", "sign in again") });
  const stream = readers.open("a", {});
  assert.equal(await state(stream.ready()), "token_revoked");
  await assert.rejects(stream.next(), { code: "token_revoked" });
});

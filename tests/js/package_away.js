// @imks/client on a network that is cut, deaf or silent, with a slow reader, and after a long absence. Bob's network is the
// bad one.
import assert from "node:assert/strict";
import { answer, env, tell } from "./client.js";
import { network } from "./cut.js";
import { client, history, Reader, state } from "./package_reader.js";

const AWAY = 1_000;
const wire = await network(env("URL"));
const alice = client(env("URL"), env("TOKEN_ALICE"), { transports: ["polling", "websocket"] });
const bob = client(wire.url, env("TOKEN_BOB"));
const session = await answer(alice.connect(), "the session");
await answer(bob.connect(), "the session of Bob");
const { channel_id } = session.channels[0];
const [hers, his] = [alice.channel(channel_id), bob.channel(channel_id)];

const view = ({ id, seq, body, deleted_at, pinned, reactions }) => {
  const counts = Object.entries(reactions).map(([emoji, { count }]) => [emoji, count]);
  return { id, seq, body, deleted_at, pinned, counts };
};

async function is_complete(reader) {
  const stored = await history(alice, channel_id);
  const kept = stored.filter(({ seq }) => seq >= reader.messages[0].seq);
  assert.deepEqual(reader.messages.map(view), kept.map(view), "the reader has what the server has");
}

async function send_many(count, name) {
  const stored = [];
  while (stored.length < count) {
    const bodies = Array.from({ length: Math.min(100, count - stored.length) }, (_, n) => `${name} ${stored.length + n}`);
    const sending = bodies.map((body) => alice.request("message:send", { channel_id, body }));
    stored.push(...(await answer(Promise.all(sending), "the sent messages")).map(({ message }) => message));
  }
  return stored;
}

// The pace of a person: both talk, both see both.
async function two_people_talk() {
  const [left, right] = [new Reader(hers.messages()), new Reader(his.messages())];
  await answer(Promise.all([left.stream.ready(), right.stream.ready()]), "their places");
  const hello = await hers.send({ body: "hello" });
  await his.send({ body: "hi", reply_to_message_id: hello.id });
  await Promise.all([left.message("hi"), right.message("hi")]);
  await alice.request("message:edit", { channel_id, message_id: hello.id, body: "hello Bob" });
  await bob.request("reaction:add", { channel_id, message_id: hello.id, emoji: "👍" });
  for (const reader of [left, right]) {
    await reader.until(() => reader.messages[0].reactions["👍"]?.count === 1, "the reaction");
    assert.deepEqual(reader.bodies(), ["hello Bob", "hi"]);
    await is_complete(reader);
  }
  await left.stream.return();
  await left.over;
  return right;
}

// A thousand messages while Bob is away, and changes of what he has.
async function away(reader) {
  const [first, second] = reader.messages;
  wire.cut();
  await state(bob, "reconnecting");
  const waiting = [his.send({ body: "written offline" }), his.send({ body: "and another" })];
  await send_many(AWAY, "while away");
  await alice.request("message:edit", { channel_id, message_id: first.id, body: "edited while away" });
  await bob_is_refused_a_request();
  await alice.request("message:delete", { channel_id, message_id: (await hers.send({ body: "not for long" })).id });
  assert.equal(reader.messages.length, 2);
  assert.deepEqual(his.waiting().map(({ request }) => request.body), ["written offline", "and another"]);
  wire.heal();
  await reader.message("and another");
  const sent = await answer(Promise.all(waiting), "what was written offline");
  assert.deepEqual(sent.map(({ seq }) => seq - sent[0].seq), [0, 1]);
  assert.deepEqual(reader.bodies().slice(0, 3), ["edited while away", second.body, "while away 0"]);
  assert.equal(reader.messages.length, 2 + AWAY + 1 + 2);
  await is_complete(reader);
}

async function bob_is_refused_a_request() {
  const request = bob.request("message:get", { channel_id, message_ids: [] }, { timeoutMs: 50 });
  await assert.rejects(request, { code: "timeout", retryable: true });
}

// The message arrives, its ack does not: it is sent again, and stored once.
async function deaf(reader) {
  wire.deafen();
  const sending = his.send({ body: "once" });
  const before = reader.messages.length;
  await answer((async () => {
    while (!(await alice.request("history", { channel_id, limit: 1 })).messages.some(({ body }) => body === "once"));
  })(), "the stored message");
  wire.heal();
  const message = await answer(sending, "the ack");
  await reader.message("once");
  assert.equal((await history(alice, channel_id)).filter(({ body }) => body === "once").length, 1);
  assert.equal(message.id, reader.messages.at(-1).id);
  assert.equal(reader.messages.length, before + 1);
}

// Nothing passes, and no connection ends: the missing heartbeat tells.
async function silent(reader) {
  wire.silence();
  await hers.send({ body: "into the silence" });
  const { error } = await state(bob, "reconnecting");
  assert.deepEqual([error.code, error.message], ["unreachable", "ping timeout"]);
  wire.heal();
  await reader.message("into the silence");
  await is_complete(reader);
}

// A reader that takes one event at a time, with room for a few.
async function slow() {
  const buffer = 8;
  let most = 0;
  const pause = () => new Promise((resolve) => setImmediate(resolve));
  const reader = new Reader(his.messages({ buffer }), { pause: async () => {
    most = Math.max(most, reader.stream.waiting);
    for (let turns = 0; turns < 20; turns++) await pause();
  } });
  await answer(reader.stream.ready(), "its place");
  const sent = await send_many(400, "too fast");
  await reader.message(sent.at(-1).body);
  await is_complete(reader);
  // One answer of `sync` (200 messages) and a page, beside the buffer and what is out of order.
  assert.ok(most <= buffer + 200 + 100 + 256, `${most} events were waiting`);
  await reader.stream.return();
}

// More changes than are told one by one.
async function reset(reader) {
  const { messages } = await alice.request("history", { channel_id, limit: 100 });
  const { messages: older } = await alice.request("history", { channel_id, limit: 100, before: messages[0].id });
  const { messages: oldest } = await alice.request("history", { channel_id, limit: 100, before: older[0].id });
  const mine = [...oldest, ...older, ...messages].filter(({ author }) => author.id === session.user.id).slice(-201);
  wire.cut();
  await state(bob, "reconnecting");
  for (let at = 0; at < mine.length; at += 50) {
    const edit = (id) => alice.request("message:edit", { channel_id, message_id: id, body: `new ${id}` });
    const edits = mine.slice(at, at + 50).map(({ id }) => edit(id));
    await answer(Promise.all(edits), "the edits");
  }
  await hers.send({ body: "after the reset" });
  wire.heal();
  await reader.message("after the reset");
  assert.ok((await reader.event("reset")).messages.length > 100);
  await is_complete(reader);
}

// From the oldest on, from some of the newest, and from where another stream was.
async function places(reader) {
  const all = await history(alice, channel_id);
  const start = new Reader(his.messages({ from: "start" }));
  await start.until(() => start.messages.length === all.length, "everything");
  await is_complete(start);
  const newest = new Reader(his.messages({ from: { last: 5 } }));
  await newest.until(() => newest.messages.length === 5, "the newest");
  assert.deepEqual(newest.bodies(), all.slice(-5).map(({ body }) => body));
  const from = JSON.parse(JSON.stringify(start.events.at(-3).cursor));
  const again = new Reader(his.messages({ from }));
  const next = await hers.send({ body: "the next one" });
  for (const each of [start, newest, again, reader]) assert.equal((await each.message(next.body)).id, next.id);
  assert.deepEqual(again.bodies(), [...all.slice(-2).map(({ body }) => body), next.body]);
  await Promise.all([start, newest, again].map((each) => each.stream.return()));
}

// An assistant writes, and a part of it is lost on the way.
async function streamed(reader) {
  const { id, body } = await hers.send({ body: "I ", stream: true });
  let offset = [...body].length;
  const append = async (text) => {
    offset = (await alice.request("stream:append", { channel_id, message_id: id, offset, text })).offset;
  };
  const has = (text) => reader.until(() => reader.messages.at(-1).body === text, `the text "${text}"`);
  await has("I ");
  await append("think ");
  await has("I think ");
  wire.cut();
  await state(bob, "reconnecting");
  await append("in 😀 ");
  wire.heal();
  await state(bob, "connected");
  await append("pieces");
  await has("I think in 😀 pieces");
  await alice.request("stream:finish", { channel_id, message_id: id });
  await reader.until(() => reader.messages.at(-1).stream.state === "finished", "the end of the stream");
  await is_complete(reader);
}

// A device that looks at nothing gets digests only, and its stream everything.
async function light() {
  const watch = client(env("URL"), env("TOKEN_BOB"), { mode: "light" });
  const reader = new Reader(watch.channel(channel_id).messages());
  await answer(reader.stream.ready(), "its place");
  await watch.request("channel:focus", { channel_ids: [] });
  const heard = [];
  watch.socket.onAny((event) => heard.push(event));
  const { id } = await hers.send({ body: "for whom it may concern" });
  await alice.request("message:edit", { channel_id, message_id: id, body: "for everybody" });
  await reader.message("for everybody");
  await is_complete(reader);
  assert.ok(heard.includes("channel:activity") && !heard.includes("message:new"));
  watch.close();
}

// One stream that asks for something wrong ends with the reason, and no other.
async function wrong(reader) {
  const foreign = "0190a8c0-0000-7000-8000-000000000000";
  const second = client(env("URL"), env("TOKEN_BOB"), { autoConnect: false });
  // They are asked for together.
  const [none, odd, unknown, good] = [
    ["general"],
    [channel_id, { from: { seq: -1, rev: 0, id: null } }],
    [foreign],
    [channel_id, { from: { last: 1 } }],
  ].map(([id, options]) => new Reader(second.channel(id).messages(options)));
  await answer(second.connect(), "the session");
  await assert.rejects(answer(none.over, "the end"), { code: "invalid_payload", retryable: false });
  await assert.rejects(answer(odd.over, "the end"), { code: "invalid_input" });
  await assert.rejects(answer(unknown.over, "the end"), { code: "not_found" });
  await assert.rejects(answer(bob.channel(foreign).send({ body: "x" }), "the refusal"), { code: "not_found" });
  await hers.send({ body: "nobody else is harmed" });
  for (const each of [good, reader]) await each.message("nobody else is harmed");
  second.close();
}

// A client that is closed ends its streams, and sends nothing.
async function closes(reader) {
  bob.close();
  await answer(reader.over, "the end");
  await assert.rejects(his.send({ body: "too late" }), { code: "closed" });
}

const parts = { away, deaf, silent, slow, reset, places, streamed, light, wrong, closes };
const reader = await two_people_talk();
for (const [name, part] of Object.entries(parts)) {
  const start = performance.now();
  await part(reader);
  if (process.env.VERBOSE) console.error(name, Math.round(performance.now() - start), "ms");
}
alice.close();
wire.close();
tell({ done: true });

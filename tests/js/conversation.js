// Two people in one channel, with the official client: everything of the first slice, over one kind of transport.
import assert from "node:assert/strict";
import { ask, connect, env, events, must, refuses, rising, tell } from "./client.js";

const url = env("URL");
const via = env("VIA");
const alice = await connect(url, env("TOKEN_ALICE"), { via });
const bob = await connect(url, env("TOKEN_BOB"), { via });
const channel_id = alice.session.channels[0].channel_id;

function session() {
  assert.equal(alice.session.protocol, 1);
  assert.equal(alice.session.user.username, "alice");
  assert.equal(alice.session.channels_complete, true);
  assert.equal(bob.session.channels[0].channel_id, channel_id, "both are members of the same channel");
  for (const socket of [alice, bob]) {
    assert.equal(socket.io.engine.transport.name, via === "polling" ? "polling" : "websocket");
  }
}

async function sending() {
  const bodies = ["one", "two", "three", "four ❤", "five"];
  const send = (body) => must(alice, "message:send", { channel_id, body, nonce: `nonce ${body}` });
  const acks = await Promise.all(bodies.map(send));
  const sent = acks.map((ack) => ack.message);
  assert.deepEqual(sent.map((message) => message.body), bodies);
  assert.ok(rising(sent.map((message) => message.seq)), "seq rises by one in the order of sending");
  assert.ok(sent.every((message, i) => i === 0 || message.id > sent[i - 1].id), "ids have the order of seq");
  assert.ok(acks.every((ack) => ack.duplicate === false));

  for (const socket of [alice, bob]) {
    const news = await events(socket, "message:new", bodies.length);
    assert.deepEqual(news, sent, "everybody gets exactly what was acknowledged, in order");
  }
  const [message] = sent;
  assert.equal(message.author.username, "alice");
  assert.deepEqual(message.reactions, {});
  assert.equal(message.attachment_count, 0);
  assert.match(message.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

  const again = await send("one");
  assert.equal(again.duplicate, true);
  assert.equal(again.message.id, message.id, "a repeated nonce gives the first message");
  await refuses(alice, "nonce_conflict", "message:send", { channel_id, body: "other", nonce: "nonce one" });
  return sent;
}

async function editing(message) {
  const edit = { channel_id, message_id: message.id, body: "one, corrected" };
  await refuses(bob, "forbidden", "message:edit", edit);
  const { message: edited } = await must(alice, "message:edit", edit);
  assert.equal(edited.body, "one, corrected");
  assert.equal(edited.version, 2);
  assert.equal(edited.seq, message.seq);
  const [update] = await events(bob, "message:updated", 1);
  assert.equal(update.kind, "edit");
  assert.equal(update.id, message.id);
  assert.equal(update.body, "one, corrected");
  assert.equal(update.rev, 1);
}

async function deleting(message) {
  const request = { channel_id, message_id: message.id };
  await refuses(bob, "forbidden", "message:delete", request);
  const gone = await must(alice, "message:delete", request);
  assert.equal(gone.message_id, message.id);
  const [told] = await events(bob, "message:deleted", 1);
  assert.equal(told.id, message.id);
  assert.equal(told.rev, gone.rev);
  await must(alice, "message:delete", request);
  await refuses(alice, "message_deleted", "message:edit", { ...request, body: "too late" });
}

async function reading(sent) {
  const page = await must(bob, "history", { channel_id, limit: 100 });
  const seqs = page.messages.map((message) => message.seq).sort((a, b) => a - b);
  assert.deepEqual(seqs, sent.map((message) => message.seq));
  assert.equal(page.has_more_before, false);
  const deleted = page.messages.find((message) => message.id === sent[1].id);
  assert.ok(deleted.deleted_at, "a deleted message is a tombstone");
  assert.ok(!JSON.stringify(page).includes('"two"'), "its text is gone");

  const older = await must(bob, "history", { channel_id, before: sent[2].id, limit: 1 });
  assert.deepEqual(older.messages.map((message) => message.id), [sent[1].id]);
  assert.equal(older.has_more_before, true);

  const cursor = { channel_id, seq: sent[2].seq, rev: 0 };
  const { channels } = await must(bob, "sync", { channels: [cursor] });
  assert.deepEqual(channels[0].messages.map((message) => message.id), sent.slice(3).map((message) => message.id));
  const changed = channels[0].changes.map((change) => change.message.id).sort();
  assert.deepEqual(changed, [sent[0].id, sent[1].id].sort());
  assert.equal(channels[0].truncated, false);
  assert.equal(channels[0].reset, false);

  const partly = await must(bob, "read:mark", { channel_id, seq: sent[3].seq });
  assert.equal(partly.unread_count, 1);
  const all = await must(bob, "read:mark", { channel_id, seq: sent[4].seq });
  assert.equal(all.unread_count, 0);
  const late = await must(bob, "read:mark", { channel_id, seq: sent[0].seq });
  assert.equal(late.read_seq, sent[4].seq, "a late packet does not move the position back");
}

async function leaving() {
  await must(bob, "channel:unsubscribe", { channel_ids: [channel_id] });
  const { message } = await must(alice, "message:send", { channel_id, body: "bob is away" });
  await events(alice, "message:new", 6);
  const before = bob.received.filter(([name]) => name === "message:new").length;
  const answers = await must(bob, "channel:subscribe", { channel_ids: [channel_id] });
  const [answer] = Array.isArray(answers) ? answers : answers.channels;
  assert.equal(answer.ok, true);
  assert.equal(answer.last_seq, message.seq);
  assert.equal(before, 5, "nothing arrives while unsubscribed");
}

async function lookingAway() {
  await must(bob, "channel:focus", { channel_ids: [] });
  const got = bob.received.filter(([name]) => name === "message:new").length;
  const { message } = await must(alice, "message:send", { channel_id, body: "bob does not look" });
  const [digest] = await events(bob, "channel:activity", 1);
  const [state] = digest.channels;
  assert.deepEqual([state.channel_id, state.last_seq, state.last_message_id], [channel_id, message.seq, message.id]);
  assert.equal(bob.received.filter(([name]) => name === "message:new").length, got, "only a digest arrives");
  const { channels: [head] } = await must(bob, "channel:focus", { channel_ids: [channel_id] });
  assert.equal(head.last_seq, message.seq);
  const missed = await must(bob, "sync", { channels: [{ channel_id, seq: message.seq - 1, rev: head.rev }] });
  assert.deepEqual(missed.channels[0].messages.map(({ id }) => id), [message.id], "who comes back catches up");
  await must(alice, "message:send", { channel_id, body: "bob looks" });
  const news = await events(bob, "message:new", got + 1);
  assert.equal(news.at(-1).body, "bob looks");
}

async function mistakes() {
  await refuses(alice, "unknown_event", "message:shout", {});
  await refuses(alice, "invalid_payload", "message:send", "just text");
  await refuses(alice, "invalid_payload", "message:send");
  const nowhere = "0190aaaa-0000-7000-8000-000000000000";
  await refuses(alice, "not_found", "message:send", { channel_id: nowhere, body: "x" });
  const { ok, error } = await ask(alice, "message:send", { channel_id, body: "x".repeat(40_001) });
  assert.equal(ok, false);
  assert.ok(["invalid_payload", "invalid_input", "payload_too_large"].includes(error.code), error.code);
  assert.equal(alice.connected, true, "mistakes cost an answer, not the connection");
}

session();
const sent = await sending();
await editing(sent[0]);
await deleting(sent[1]);
await reading(sent);
await leaving();
await lookingAway();
await mistakes();
alice.close();
bob.close();
tell({ done: true });

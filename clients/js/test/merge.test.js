// What the merger does in the cases that have a name. That it is right in all others: merge.property.test.js.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apply } from "../dist/index.js";
import { HOLE_MS, Merger } from "../dist/merge.js";
import { Server } from "./server.js";

const OPTIONS = { buffer: 4, gaps: "fill", userId: "me" };

function merger(cursor = { seq: 0, rev: 0, id: null }, options = OPTIONS) {
  return new Merger(cursor, 0, options);
}

const message = (seq, more = {}) => ({ id: Server.id(seq), seq, body: `${seq}`, deleted_at: null, stream: null, reactions: {}, poll: null, ...more });
const sent = (seq, more) => ({ name: "message:new", payload: message(seq, more) });
const change = (seq, rev, kind) => ({ ...message(seq, { body: "edited" }), rev, kind, event_id: "e" });
const edited = (seq, rev) => ({ name: "message:updated", payload: change(seq, rev, "edit") });
const NOTHING = { messages: [], changes: [], truncated: false, reset: false, horizon_seq: 0, horizon_id: null };
const answer = (more) => ({ ...NOTHING, ...more });

function all(merger) {
  const events = [];
  for (let event = merger.take(); event; event = merger.take()) events.push(event);
  return events;
}

const told = (events) => events.map((event) => `${event.type} ${event.message?.seq ?? event.seq ?? event.rev ?? event.text}`);

test("what comes in order is told at once, and what comes twice once", () => {
  const it = merger();
  for (const event of [sent(1), sent(2), sent(2), edited(1, 1), edited(1, 1)]) it.live(event, 0);
  const events = all(it);
  assert.deepEqual(told(events), ["message 1", "message 2", "updated 1"]);
  assert.deepEqual(events.at(-1).cursor, { seq: 2, rev: 1, id: Server.id(2) });
  assert.equal("event_id" in events.at(-1).changes || "rev" in events.at(-1).changes, false, "the changes are those of a message");
  assert.equal(it.dueAt, null);
});

test("a hole that closes by itself costs no request, and one that stays is asked for after two seconds", () => {
  const it = merger();
  it.live(sent(2), 10);
  assert.deepEqual([all(it), it.next(10 + HOLE_MS - 1), it.dueAt], [[], null, 10 + HOLE_MS]);
  it.live(sent(1), 20);
  assert.deepEqual([told(all(it)), it.dueAt], [["message 1", "message 2"], null]);
  it.live(edited(2, 2), 30);
  assert.deepEqual(it.next(30 + HOLE_MS), { ask: "sync", seq: 2, rev: 0 });
  it.synced(answer({ seq: 2, rev: 2, changes: [{ rev: 2, message: message(2, { body: "edited" }) }] }), 40 + HOLE_MS);
  assert.deepEqual([told(all(it)), it.dueAt], [["updated 2"], null]);
});

test("an answer that is older than what came meanwhile takes nothing back", () => {
  const it = merger();
  const stream = (offset) => ({ body: "a".repeat(offset), stream: { state: "active", offset } });
  it.live(sent(1), 0);
  it.live(sent(2, stream(1)), 0);
  for (const event of [edited(1, 1), edited(1, 2)]) it.live(event, 0);
  all(it);
  it.live({ name: "message:append", payload: { id: Server.id(2), offset: 1, text: "a" } }, 0);
  all(it);
  const changes = [{ rev: 1, message: message(1, { body: "old" }) }];
  it.synced(answer({ seq: 2, rev: 1, changes }), 0);
  it.synced(answer({ seq: 2, rev: 2, changes: [{ rev: 2, message: message(2, stream(1)) }] }), 0);
  it.live({ name: "message:updated", payload: { ...change(2, 3, "stream"), stream: { state: "finished", offset: 2 } } }, 0);
  assert.deepEqual(told(all(it)), ["updated 3"]);
  it.synced(answer({ seq: 2, rev: 2, changes: [{ rev: 2, message: message(2, stream(2)) }] }), 0);
  assert.deepEqual([told(all(it)), it.cursor.rev], [[], 3]);
});

test("a slow reader holds nothing but its buffer, and gets what was dropped when it reads again", () => {
  const it = merger();
  for (let seq = 1; seq <= 1_000; seq++) it.live(sent(seq), 0);
  assert.equal(it.waiting, 4);
  assert.equal(it.next(0), null, "it has enough to do");
  assert.deepEqual(told([it.take(), it.take()]), ["message 1", "message 2"]);
  assert.deepEqual(it.next(0), { ask: "sync", seq: 4, rev: 0 });
  it.synced(answer({ seq: 1_000, rev: 0, truncated: true, messages: [message(999), message(1_000)] }), 0);
  assert.deepEqual(it.next(0), { ask: "history", after: Server.id(4) });
});

test("what does not fit into an answer is fetched, or left out where the reader wants that", () => {
  const away = answer({ seq: 9, rev: 0, truncated: true, messages: [message(8), message(9)] });
  const [fill, skip] = [merger(), merger(undefined, { ...OPTIONS, gaps: "skip" })];
  fill.synced(away, 0);
  assert.equal(fill.next(0).ask, "history");
  fill.page({ messages: [1, 2, 3].map((seq) => message(seq)), has_more_after: true }, 0);
  all(fill);
  assert.deepEqual(fill.next(0), { ask: "history", after: Server.id(3) });
  skip.synced(away, 0);
  const [gap, ...rest] = all(skip);
  assert.deepEqual([gap.type, gap.after, gap.before, told(rest)], ["gap", 0, 8, ["message 8", "message 9"]]);
});

test("after a reset the known messages come as they are now, and new ones as always", () => {
  const it = merger({ seq: 2, rev: 5, id: Server.id(2) });
  it.synced(answer({ reset: true, seq: 3, rev: 900, messages: [message(1, { body: "new" }), message(2), message(3)] }), 0);
  const [reset, ...rest] = all(it);
  assert.deepEqual([reset.type, reset.messages.map(({ body }) => body), told(rest)], ["reset", ["new", "2"], ["message 3"]]);
  assert.deepEqual(it.cursor, { seq: 3, rev: 900, id: Server.id(3) });
});

test("a server that lost the newest messages is believed", () => {
  const it = merger({ seq: 9, rev: 5, id: Server.id(9) });
  it.synced(answer({ reset: true, seq: 2, rev: 1, messages: [message(1), message(2)] }), 0);
  it.live(sent(3), 0);
  assert.deepEqual(all(it).map(({ type }) => type), ["reset", "message"]);
});

test("messages that were too old are told as removed", () => {
  const it = merger({ seq: 2, rev: 0, id: Server.id(2) });
  it.live({ name: "channel:horizon", payload: { horizon_seq: 5, horizon_id: Server.id(5) } }, 0);
  it.live(sent(6), 0);
  const [removed, next] = all(it);
  assert.deepEqual([removed.type, removed.until_seq, next.message.seq], ["removed", 5, 6]);
  assert.deepEqual(apply([message(2), message(6)], removed).map(({ seq }) => seq), [6]);
});

test("a streamed message grows piece by piece, and a piece that is missing is fetched", () => {
  const it = merger();
  const piece = (offset, text) => it.live({ name: "message:append", payload: { id: Server.id(1), offset, text } }, 0);
  it.live(sent(1, { body: "a", stream: { state: "active", offset: 1 } }), 0);
  piece(1, "😀");
  piece(1, "😀");
  piece(2, "b");
  assert.deepEqual(told(all(it)), ["message 1", "append 😀", "append b"]);
  piece(9, "late");
  assert.deepEqual(it.next(0), { ask: "messages", ids: [Server.id(1)] });
  it.got([message(1, { body: "a😀b and late", stream: { state: "active", offset: 13 } })]);
  piece(13, "!");
  assert.deepEqual(all(it).map(({ type }) => type), ["updated", "append"]);
});

test("a piece that overtakes an answer that has less is fetched, and so is one that overtakes its message", () => {
  const it = merger();
  const stream = (offset) => ({ body: "a".repeat(offset), stream: { state: "active", offset } });
  const piece = (seq, offset) => it.live({ name: "message:append", payload: { id: Server.id(seq), offset, text: "a" } }, 0);
  it.live(sent(1, stream(1)), 0);
  piece(1, 5);
  it.synced(answer({ seq: 1, rev: 0, changes: [{ rev: 0, message: message(1, stream(5)) }] }), 0);
  assert.deepEqual(it.next(0), { ask: "messages", ids: [Server.id(1)] });
  assert.equal(it.next(0), null, "once");
  it.live(sent(3, stream(1)), 0);
  piece(3, 1);
  it.live(sent(2), 0);
  all(it);
  assert.deepEqual(it.next(0), { ask: "messages", ids: [Server.id(3)] });
});

test("a fetched text that is older than the end of its stream brings nothing back", () => {
  const stream = (state, offset) => ({ body: "a".repeat(offset), stream: { state, offset } });
  const finished = { name: "message:updated", payload: { ...change(1, 1, "stream"), ...stream("finished", 9) } };
  const deleted = { name: "message:deleted", payload: { id: Server.id(1), seq: 1, rev: 1, deleted_at: "now" } };
  for (const [end, type] of [[finished, "updated"], [deleted, "deleted"]]) {
    const it = merger();
    it.live(sent(1, stream("active", 0)), 0);
    it.live({ name: "message:append", payload: { id: Server.id(1), offset: 5, text: "aaaa" } }, 0);
    all(it);
    assert.equal(it.next(0).ask, "messages");
    it.live(end, 0);
    it.got([message(1, stream("active", 9))]);
    assert.deepEqual([all(it).map((event) => event.type), it.dueAt], [[type], null]);
  }
});

test("two changes of an answer may have the same number", () => {
  const it = merger({ seq: 2, rev: 0, id: Server.id(2) });
  const changes = [1, 2].map((seq) => ({ rev: 4, message: message(seq, { body: "new" }) }));
  it.synced(answer({ seq: 2, rev: 4, changes }), 0);
  const [first, last] = all(it);
  assert.deepEqual([first.id, first.cursor.rev, last.id, last.cursor.rev], [Server.id(1), 3, Server.id(2), 4]);
});

test("a fetched text changes nothing else of its message", () => {
  const it = merger();
  const stream = (offset) => ({ body: "a".repeat(offset), stream: { state: "active", offset } });
  it.live(sent(1, { ...stream(0), reactions: {} }), 0);
  it.live({ name: "message:append", payload: { id: Server.id(1), offset: 5, text: "aaaa" } }, 0);
  it.next(0);
  it.live({ name: "reaction:updated", payload: { message_id: Server.id(1), rev: 1, reactions: { "👍": { count: 1 } } } }, 0);
  it.got([message(1, { ...stream(9), reactions: {} })]);
  const [{ body, reactions }] = all(it).reduce(apply, []);
  assert.deepEqual([body.length, reactions], [9, { "👍": { count: 1 } }]);
});

test("pieces for which a slow reader has no room are fetched as a whole", () => {
  const it = merger();
  it.live(sent(1, { body: "", stream: { state: "active", offset: 0 } }), 0);
  const piece = (offset) => it.live({ name: "message:append", payload: { id: Server.id(1), offset, text: "x" } }, 0);
  for (let at = 0; at < 1_000; at++) piece(at);
  assert.deepEqual([it.waiting, told(all(it))], [4, ["message 1", "append x", "append x", "append x"]]);
  assert.equal(it.next(0).ask, "messages");
});

test("reactions, pins, polls, acknowledgements and threads change one field of a message", () => {
  const it = merger({ seq: 1, rev: 0, id: Server.id(1) });
  const id = Server.id(1);
  const thread = { reply_count: 1, last_reply_at: "now", last_reply_seq: 2, participant_ids: [] };
  it.live({ name: "reaction:updated", payload: { message_id: id, rev: 1, reactions: { "👍": { count: 1 } } } }, 0);
  it.live({ name: "pin:updated", payload: { message_id: id, rev: 2, pinned: true } }, 0);
  it.live({ name: "poll:updated", payload: { message_id: id, rev: 3, poll: { votes: 2 } } }, 0);
  it.live({ name: "ack:updated", payload: { message_id: id, rev: 4, ack_count: 3, user_ids: ["other"] } }, 0);
  const changes = all(it).reduce(apply, [message(1)]);
  it.live({ name: "thread:updated", payload: { thread_id: id, rev: 5, event_id: "e", ...thread } }, 0);
  const [last] = all(it).reduce(apply, changes);
  assert.deepEqual(last, { ...message(1), reactions: { "👍": { count: 1 } }, pinned: true, poll: { votes: 2 }, ack_count: 3, thread });
});

test("what the reader has acknowledged on another device is marked, and stays so", () => {
  const it = merger({ seq: 1, rev: 0, id: Server.id(1) });
  const ack = (rev, user_ids) => {
    it.live({ name: "ack:updated", payload: { message_id: Server.id(1), rev, ack_count: rev, user_ids } }, 0);
    return all(it).reduce(apply, messages);
  };
  let messages = [message(1)];
  const seen = [["other"], ["third", "me"], ["fourth"]].map((ids, place) => (messages = ack(place + 1, ids))[0].acked);
  assert.deepEqual([seen, messages[0].ack_count], [[undefined, true, true], 3]);
});

test("a deleted message keeps nothing, and nothing of it stays in the messages that quote it", () => {
  const it = merger({ seq: 3, rev: 0, id: Server.id(3) });
  const quote = { id: Server.id(1), seq: 1, body: "secret", deleted_at: null };
  const forward = { id: "another", body: "secret", deleted_at: null };
  const first = message(1, { body: "secret", forward_of: forward, mentions: { users: ["u"] }, metadata: { a: 1 }, acked: true });
  const [reply, copy] = [message(2, { reply_to: quote }), message(3, { forward_of: quote })];
  it.live({ name: "message:deleted", payload: { id: Server.id(1), seq: 1, rev: 1, deleted_at: "now" } }, 0);
  const after = all(it).reduce(apply, [first, reply, copy]);
  assert.ok(!JSON.stringify(after).includes("secret"));
  assert.deepEqual([after[1].reply_to.deleted_at, after[2].forward_of.deleted_at], ["now", "now"]);
  const { mentions, ...gone } = after[0];
  assert.deepEqual([mentions.users, gone.deleted_at, "metadata" in gone, "acked" in gone], [[], "now", false, false]);
});

test("what is the reader's own stays when others react, vote or edit", () => {
  const it = merger({ seq: 1, rev: 0, id: Server.id(1) });
  const [message_id, total] = [Server.id(1), (count) => ({ count, user_ids: [] })];
  const first = message(1, { reactions: { a: { ...total(2), me: true }, b: total(1) }, poll: { votes: 1, my_votes: [0] } });
  const react = (rev, user_id, action, emoji, reactions) =>
    it.live({ name: "reaction:updated", payload: { message_id, rev, user_id, action, emoji, reactions } }, 0);
  react(1, "other", "add", "b", { a: total(2), b: total(2) });
  react(2, "me", "add", "b", { a: total(2), b: total(3) });
  it.live({ name: "poll:updated", payload: { message_id, rev: 3, poll: { votes: 2 } } }, 0);
  const live = { ...change(1, 4, "edit"), reactions: { a: total(2), b: total(3) }, poll: { votes: 2 } };
  it.live({ name: "message:updated", payload: live }, 0);
  const [both] = all(it).reduce(apply, [first]);
  assert.deepEqual(both.reactions, { a: { ...total(2), me: true }, b: { ...total(3), me: true } });
  assert.deepEqual([both.body, both.poll], ["edited", { votes: 2, my_votes: [0] }]);
  react(5, "me", "remove", "a", { a: total(1), b: total(3) });
  assert.deepEqual(all(it).reduce(apply, [both])[0].reactions, { a: total(1), b: { ...total(3), me: true } });
  it.synced(answer({ seq: 1, rev: 6, changes: [{ rev: 6, message: { ...first, reactions: { b: total(2) }, poll: null } }] }), 0);
  const [now] = all(it).reduce(apply, [both]);
  assert.deepEqual([now.reactions, now.poll], [{ b: total(2) }, null], "an answer knows better");
});

test("a tombstone that comes in an answer is the message", () => {
  const it = merger({ seq: 1, rev: 0, id: Server.id(1) });
  const tombstone = message(1, { body: "", deleted_at: "now", version: 2, edited_at: "before" });
  it.synced(answer({ seq: 1, rev: 2, changes: [{ rev: 2, message: tombstone }] }), 0);
  assert.deepEqual(all(it).reduce(apply, [message(1, { version: 1, edited_at: null })]), [tombstone]);
});

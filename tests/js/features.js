// Every feature in a real browser with the stock client: Alice on a phone and a laptop, and Bob. The pages are of the
// server's own origin, which has no page for people; what its answers forbid to pages is left out.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { chromium_context } from "./chromium.js";
import { PATIENCE_MS, env, tell } from "./client.js";

const url = env("URL");
const CLIENT = await readFile(new URL("./node_modules/socket.io-client/dist/socket.io.js", import.meta.url), "utf8");

// Runs in the page: one client that keeps what it gets.
async function sign_in({ token, patience }) {
  const socket = io({ auth: { token, protocol: 1 }, transports: ["websocket"] });
  const received = [];
  socket.onAny((name, payload) => received.push([name, payload]));
  // The first event of that name that nobody has taken and that has these fields.
  const heard = async (name, wanted) => {
    const fits = ([event, payload]) =>
      event === name && Object.entries(wanted).every(([field, value]) => JSON.stringify(payload[field]) === JSON.stringify(value));
    for (const start = Date.now(); ; await new Promise((resolve) => setTimeout(resolve, 10))) {
      const found = received.findIndex(fits);
      if (found >= 0) return received.splice(found, 1)[0][1];
      if (Date.now() - start > patience) {
        throw new Error(`not heard: ${name} ${JSON.stringify(wanted)}, but ${JSON.stringify(received)}`);
      }
    }
  };
  const ask = async (event, request) => {
    for (;;) {
      const answer = await socket.timeout(patience).emitWithAck(event, request);
      if (answer.ok) return answer.data;
      if (answer.error.code !== "rate_limited") throw new Error(`${event}: ${JSON.stringify(answer.error)}`);
      await new Promise((resolve) => setTimeout(resolve, answer.error.retry_after_ms));
    }
  };
  window.device = { ask, heard };
  return heard("session:ready", {});
}

// One device: a page of its own.
class Device {
  static async open(browser, token) {
    const device = new Device();
    device.page = await browser.newPage();
    device.page.on("console", (message) => console.error(`page: ${message.text()}`));
    await device.page.goto(`${url}/health`);
    await device.page.evaluate(CLIENT);
    device.session = await device.page.evaluate(sign_in, { token, patience: PATIENCE_MS });
    return device;
  }

  ask(event, request = {}) {
    return this.page.evaluate(([event, request]) => window.device.ask(event, request), [event, request]);
  }

  heard(name, wanted = {}) {
    return this.page.evaluate(([name, wanted]) => window.device.heard(name, wanted), [name, wanted]);
  }
}

let phone, laptop, bob, channel_id;

const send = async (device, request) => (await device.ask("message:send", { channel_id, ...request })).message;
const on = (message) => ({ channel_id, message_id: message.id });
const soon = (millis) => new Date(Date.now() + millis).toISOString();
const everywhere = (name, wanted) => Promise.all([phone, laptop, bob].map((device) => device.heard(name, wanted)));
const on_both = (name, wanted) => Promise.all([phone, laptop].map((device) => device.heard(name, wanted)));

async function reactions_and_pins() {
  const message = await send(bob, { body: "hello" });
  await everywhere("message:new", { id: message.id });
  await phone.ask("reaction:add", { ...on(message), emoji: "👍" });
  for (const told of await everywhere("reaction:updated", { message_id: message.id, action: "add" })) {
    assert.equal(told.reactions["👍"].count, 1);
  }
  const { messages } = await laptop.ask("message:get", { channel_id, message_ids: [message.id] });
  assert.equal(messages[0].reactions["👍"].me, true, "the laptop knows what the phone did");
  await laptop.ask("reaction:remove", { ...on(message), emoji: "👍" });
  for (const told of await everywhere("reaction:updated", { action: "remove" })) assert.deepEqual(told.reactions, {});
  await phone.ask("pin:add", on(message));
  for (const told of await everywhere("pin:updated", { pinned: true })) assert.equal(told.pin_count, 1);
  const { pins } = await bob.ask("pin:list", { channel_id });
  assert.equal(pins[0].message_id, message.id);
  await laptop.ask("pin:remove", on(message));
  await everywhere("pin:updated", { pinned: false });
}

async function bookmarks_and_drafts() {
  const message = await send(bob, { body: "keep this" });
  await phone.ask("bookmark:add", { ...on(message), note: "later" });
  for (const told of await on_both("bookmark:updated", { message_id: message.id })) assert.equal(told.note, "later");
  await laptop.ask("bookmark:add", { ...on(message), remind_at: soon(700) });
  await on_both("bookmark:updated", { remind_at: null, note: "later" });
  assert.ok((await laptop.ask("bookmark:list")).bookmarks[0].reminded_at, "the reminder came");
  await laptop.ask("draft:set", { channel_id, body: "dear all" });
  for (const told of await on_both("draft:updated", { cleared: false })) assert.equal(told.body, "dear all");
  await phone.ask("message:send", { channel_id, body: "dear all", clear_draft: true });
  await on_both("draft:updated", { cleared: true });
}

async function polls() {
  const poll = { question: "Lunch?", options: ["Soup", "Rice"] };
  const message = await send(phone, { body: "lunch", poll });
  await laptop.ask("poll:vote", { ...on(message), option_ids: [1] });
  await everywhere("poll:updated", { message_id: message.id });
  await bob.ask("poll:vote", { ...on(message), option_ids: [1] });
  for (const told of await everywhere("poll:updated", { message_id: message.id })) assert.equal(told.poll.options[1].votes, 2);
  const { messages } = await phone.ask("message:get", { channel_id, message_ids: [message.id] });
  assert.deepEqual(messages[0].poll.my_votes, [1], "the phone knows the vote of the laptop");
  await phone.ask("poll:close", on(message));
  for (const told of await everywhere("poll:updated")) assert.equal(told.poll.is_final, true);
  assert.equal((await bob.ask("poll:voters", { ...on(message), option_id: 1 })).user_ids.length, 2);
}

async function threads() {
  const root = await send(phone, { body: "a question" });
  await send(bob, { body: "an answer", thread_id: root.id });
  for (const told of await everywhere("thread:updated", { thread_id: root.id })) assert.equal(told.reply_count, 1);
  const { threads } = await laptop.ask("thread:followed", { unread: true });
  assert.deepEqual([threads[0].thread_id, threads[0].unread_count], [root.id, 1]);
  await laptop.ask("read:mark", { channel_id, thread_id: root.id, seq: threads[0].last_reply_seq });
  for (const told of await on_both("thread:state", { thread_id: root.id })) assert.equal(told.unread_count, 0);
  const { messages } = await bob.ask("history", { channel_id, thread_id: root.id });
  assert.deepEqual(messages.map((message) => message.body), ["an answer"]);
}

async function read_positions_and_receipts() {
  const [first, second] = [await send(bob, { body: "one" }), await send(bob, { body: "two" })];
  await phone.ask("read:mark", { channel_id, seq: second.seq });
  for (const told of await on_both("read:updated", { read_seq: second.seq, thread_id: null })) assert.equal(told.unread_count, 0);
  const alice = phone.session.user.id;
  await bob.heard("read:updated", { user_id: alice, read_seq: second.seq });
  assert.ok((await bob.ask("read:receipts", { channel_id, seq: second.seq })).user_ids.includes(alice));
  await laptop.ask("read:mark_unread", { channel_id, from_seq: first.seq });
  for (const told of await on_both("read:updated", { read_seq: first.seq - 1 })) assert.equal(told.unread_count, 2);
  assert.equal((await phone.ask("read:mark_all")).updated, 1);
  await on_both("read:updated_many");
}

async function mentions() {
  const users = [phone.session.user.id];
  const message = await send(bob, { body: "you", mentions: { users } });
  for (const told of await on_both("mention:new", { message_id: message.id })) assert.equal(told.kind, "user");
  const inbox = await laptop.ask("mentions:list");
  assert.equal(inbox.mentions[0].message.id, message.id);
}

// Runs in the page: the file goes to the server's own store, and comes back.
async function put({ upload, bytes }) {
  const response = await fetch(upload.url, { method: upload.method, headers: upload.headers, body: bytes });
  return response.status;
}

async function attachments() {
  const bytes = "a plan";
  const file = { channel_id, filename: "plan.txt", mime: "text/plain", size: bytes.length };
  const { attachment, upload } = await phone.ask("attachment:create", file);
  assert.equal(await phone.page.evaluate(put, { upload, bytes }), 201);
  await phone.ask("attachment:complete", { attachment_id: attachment.id });
  const message = await send(laptop, { body: "see the plan", attachments: [attachment.id] });
  for (const told of await everywhere("message:new", { id: message.id })) assert.equal(told.attachments[0].filename, "plan.txt");
  const { url: address } = await bob.ask("attachment:get", { channel_id, attachment_id: attachment.id });
  const text = await bob.page.evaluate((address) => fetch(address).then((response) => response.text()), address);
  assert.equal(text, bytes);
}

async function scheduled() {
  const request = { channel_id, body: "good morning", send_at: soon(1_500) };
  const { scheduled } = await phone.ask("schedule:create", request);
  await on_both("schedule:updated", { id: scheduled.id, state: "pending" });
  for (const told of await everywhere("message:new", { nonce: scheduled.id })) assert.equal(told.body, "good morning");
  await on_both("schedule:updated", { id: scheduled.id, state: "sent" });
  const later = await laptop.ask("schedule:create", { ...request, send_at: soon(3_600_000) });
  await phone.ask("schedule:cancel", { id: later.scheduled.id });
  await on_both("schedule:updated", { id: later.scheduled.id, state: "cancelled" });
}

async function typing_and_presence() {
  await phone.ask("typing:start", { channel_id });
  for (const device of [laptop, bob]) assert.equal((await device.heard("typing", { typing: true })).user.username, "alice");
  await phone.ask("typing:stop", { channel_id });
  for (const device of [laptop, bob]) await device.heard("typing", { typing: false });
  const user = phone.session.user.id;
  const { presences } = await bob.ask("presence:subscribe", { user_ids: [user] });
  assert.equal(presences[0].status, "online");
  await laptop.ask("presence:set", { status: "dnd" });
  await on_both("presence:own", { status: "dnd" });
  await bob.heard("presence:update", { user_id: user, status: "dnd" });
  const { presences: here } = await phone.ask("presence:list", { channel_id });
  assert.equal(here.length, 2, "two people on three devices");
}

async function edits_forwards_and_search() {
  const message = await send(phone, { body: "a tyop" });
  await laptop.ask("message:edit", { ...on(message), body: "a typographical error", expected_version: 1 });
  for (const told of await everywhere("message:updated", { id: message.id })) assert.equal(told.version, 2);
  const { edits } = await phone.ask("message:edits", on(message));
  assert.deepEqual(edits.map((edit) => edit.body), ["a tyop"]);
  const forwarded = await send(bob, { forward_of: { channel_id, message_id: message.id } });
  for (const told of await everywhere("message:new", { id: forwarded.id })) {
    assert.equal(told.forward_of.body, "a typographical error");
  }
  for (const start = Date.now(); ; ) {
    const { messages } = await laptop.ask("search", { q: "typographical" });
    if (messages.some((found) => found.id === message.id)) break;
    assert.ok(Date.now() - start < PATIENCE_MS, "a message is found a moment after it was sent");
  }
  await phone.ask("message:delete", on(message));
  await everywhere("message:deleted", { id: message.id });
}

async function reports() {
  const message = await send(bob, { body: "buy this" });
  await laptop.ask("message:report", { ...on(message), reason: "spam" });
  const { reports } = await phone.ask("report:list", { channel_id });
  assert.deepEqual([reports[0].message_id, reports[0].body], [message.id, "buy this"]);
}

// A message of a back end that only Alice sees, on both devices.
async function ephemeral() {
  const response = await fetch(`${url}/api/v1/admin/users/${phone.session.user.id}/ephemeral-messages`, {
    method: "POST",
    headers: { authorization: `Bearer ${env("KEY")}`, "content-type": "application/json" },
    body: JSON.stringify({ channel_id, content: { body: "only you" }, identity: { kind: "bot", name: "Helper" } }),
  });
  assert.equal(response.status, 200, await response.text());
  for (const told of await on_both("message:ephemeral")) assert.equal(told.body, "only you");
  const { messages } = await phone.ask("history", { channel_id, limit: 100 });
  assert.ok(!messages.some((message) => message.body === "only you"), "it is not stored");
}

// A device that was away has what the others have.
async function a_device_that_comes_later(browser) {
  const tablet = await Device.open(browser, env("TOKEN_ALICE"));
  const [of_tablet, of_phone] = [tablet, phone].map((device) =>
    device.ask("sync", { channels: [{ channel_id, seq: 0, rev: 0 }], user_rev: 0 }));
  const [late, early] = [await of_tablet, await of_phone];
  assert.deepEqual(late.channels, early.channels);
  assert.deepEqual(late.user, early.user);
}

await chromium_context(async (browser) => {
  [phone, laptop] = [await Device.open(browser, env("TOKEN_ALICE")), await Device.open(browser, env("TOKEN_ALICE"))];
  bob = await Device.open(browser, env("TOKEN_BOB"));
  channel_id = phone.session.channels[0].channel_id;
  await reactions_and_pins();
  await bookmarks_and_drafts();
  await polls();
  await threads();
  await read_positions_and_receipts();
  await mentions();
  await attachments();
  await scheduled();
  await typing_and_presence();
  await edits_forwards_and_search();
  await reports();
  await ephemeral();
  await a_device_that_comes_later(browser);
}, { bypassCSP: true });
tell({ done: true });

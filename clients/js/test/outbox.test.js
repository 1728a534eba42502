// The outbox, with a server that answers what the test says.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ImksError, MemoryStore, WebStorageStore } from "../dist/index.js";
import { newNonce, Outbox } from "../dist/outbox.js";
import { requestNow } from "../dist/requests.js";
import { pause, refusal } from "../dist/retry.js";
import { Connection } from "./connection.js";

const HOUR = 60 * 60 * 1_000;

// An outbox; `answers` are taken one after the other, and then every message is stored.
function outbox({ answers = [], max = 10, store = new MemoryStore(), clock = () => 0, online = Promise.resolve() } = {}) {
  const it = { attempts: [], slept: [], told: [], unreadable: [], store };
  it.box = new Outbox({
    store,
    max,
    ready: () => online.then(() => it.closed && Promise.reject(it.closed)),
    deliver: async (request) => {
      it.attempts.push(request);
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
      return { id: request.nonce, body: request.body };
    },
    told: (outcome) => it.told.push(outcome),
    unreadable: (error) => it.unreadable.push(error),
    clock,
    sleep: async (ms) => void it.slept.push(ms),
  });
  return it;
}

// A storage as browsers have it, and what it keeps.
function webStorage() {
  const kept = new Map();
  const storage = {
    get length() { return kept.size; },
    key: (index) => [...kept.keys()][index] ?? null,
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  };
  return { kept, storage };
}

const entry = (nonce, order) => ({ nonce, order, request: draft(nonce, { nonce }), tried_at: null });
const draft = (body, more = {}) => ({ channel_id: "c", body, ...more });
const error = (code, more = {}) => new ImksError(code, code, more);
const busy = (more) => error("rate_limited", { retryable: true, retryAfterMs: 700, ...more });

test("messages of a channel are sent in the order in which they were written, each with one nonce for all attempts", async () => {
  const it = outbox({ answers: [error("disconnected", { retryable: true }), busy()] });
  const stored = await Promise.all(["one", "two", "three"].map((body) => it.box.send(draft(body))));
  assert.deepEqual(stored.map(({ body }) => body), ["one", "two", "three"]);
  assert.deepEqual(it.attempts.map(({ body }) => body), ["one", "one", "one", "two", "three"]);
  assert.equal(new Set(it.attempts.map(({ nonce }) => nonce)).size, 3);
  assert.equal(it.slept.length, 2);
  assert.ok(it.slept[0] >= 125, "it does not come back at once after a lost connection");
  assert.ok(it.slept[1] >= 700, "it waits as long as the server says");
  assert.deepEqual([it.box.waiting(), it.store.load()], [[], []]);
});

test("a message that is refused for good fails with the code, and the next one is sent", async () => {
  const bug = error("internal", { retryable: true });
  const it = outbox({ answers: [error("channel_archived"), bug, bug] });
  const [refused, broken, good] = await Promise.allSettled(["a", "b", "c"].map((body) => it.box.send(draft(body))));
  assert.deepEqual([refused.reason.code, broken.reason.code, good.status], ["channel_archived", "internal", "fulfilled"]);
  assert.deepEqual(it.attempts.map(({ body }) => body), ["a", "b", "b", "c"], "a bug is tried twice");
  assert.deepEqual(it.told.map((outcome) => outcome.error?.code ?? outcome.message.body), ["channel_archived", "internal", "c"]);
});

test("a message that ends the connection again and again is tried ever more slowly", async () => {
  const it = outbox({ answers: Array.from({ length: 10 }, () => error("disconnected", { retryable: true })) });
  await it.box.send(draft("x"));
  assert.equal(it.attempts.length, 11);
  assert.ok(it.slept[0] < 1_000 && it.slept[9] >= 15_000, `${it.slept}`);
});

test("a message that is too large fails, and the next one is sent", async () => {
  const connection = new Connection((_, message) => ({ message }));
  const box = new Outbox({
    store: new MemoryStore(),
    max: 10,
    ready: () => connection.ready(),
    deliver: async (message) => (await requestNow(connection, "message:send", message)).message,
    told: () => {},
    unreadable: () => {},
    clock: () => 0,
    sleep: async () => assert.fail("nothing to wait for"),
  });
  const [large, small] = await Promise.allSettled([box.send(draft("é".repeat(800))), box.send(draft("small"))]);
  assert.deepEqual([large.reason?.code, small.value?.body, box.waiting()], ["payload_too_large", "small", []]);
});

test("a full outbox refuses one more message, and has room again afterwards", async () => {
  const it = outbox({ max: 2 });
  const sending = [it.box.send(draft("1")), it.box.send(draft("2"))];
  assert.deepEqual(it.box.waiting().map(({ request }) => request.body), ["1", "2"], "they wait at once");
  await assert.rejects(it.box.send(draft("3")), { code: "outbox_full" });
  await Promise.all(sending);
  await it.box.send(draft("4"));
});

test("what an earlier run has left is sent first, with its nonce", async () => {
  const first = outbox();
  first.closed = error("closed");
  await assert.rejects(first.box.send(draft("left")), { code: "closed" });
  assert.deepEqual(first.told, [], "it is not refused");
  const next = outbox({ store: first.store });
  await next.box.send(draft("new"));
  assert.deepEqual(next.attempts.map(({ body }) => body), ["left", "new"]);
  assert.equal(next.attempts[0].nonce, first.store.load()[0]?.nonce ?? next.told[0].entry.nonce);
  assert.equal(next.store.load().length, 0);
});

test("a message that may have been stored a day ago is not sent again", async () => {
  let now = 0;
  const store = new MemoryStore();
  store.put({ nonce: "n", order: 3, request: draft("old", { nonce: "n" }), tried_at: 0 });
  store.put({ nonce: "m", order: 4, request: draft("never tried", { nonce: "m" }), tried_at: null });
  now = 24 * HOUR;
  const it = outbox({ store, clock: () => now });
  await it.box.send(draft("new"));
  assert.deepEqual(it.attempts.map(({ body }) => body), ["never tried", "new"]);
  assert.equal(it.told[0].error.code, "nonce_expired");
});

test("what another tab has sent or tried is not sent a day later", async () => {
  let [now, connect] = [0, null];
  const { storage } = webStorage();
  const [mine, other] = [1, 2].map(() => new WebStorageStore("alice", storage));
  for (const [order, nonce] of ["sent", "tried", "left"].entries()) mine.put(entry(nonce, order));
  const it = outbox({ store: mine, clock: () => now, online: new Promise((resolve) => (connect = resolve)) });
  const own = it.box.send(draft("own", { nonce: "own" }));
  await new Promise(setImmediate);
  for (const nonce of ["sent", "own"]) other.remove(nonce);
  other.put({ ...entry("tried", 1), tried_at: 1 });
  now = 24 * HOUR;
  connect();
  await assert.rejects(own, { code: "nonce_expired" });
  await it.box.send(draft("new"));
  assert.deepEqual(it.attempts.map(({ body }) => body), ["left", "new"]);
  assert.deepEqual(it.told.slice(0, 2).map(({ entry, error }) => [entry.nonce, error?.code]), [["sent", "nonce_expired"], ["tried", "nonce_expired"]]);
});

test("a store that fails keeps no message that is not kept", async () => {
  const full = { load: () => [], remove() {}, put: () => { throw new Error("the quota"); } };
  const it = outbox({ store: full });
  await assert.rejects(it.box.send(draft("x")), ({ code, cause }) => code === "store_failed" && cause.message === "the quota");
  assert.deepEqual(it.attempts, []);
});

test("a store that could not be read is read again, and what it kept is still sent first", async () => {
  const old = { nonce: "n", order: 1, request: draft("left", { nonce: "n" }), tried_at: null };
  const answers = [() => Promise.reject(new Error("gone")), () => undefined, () => [old]];
  const it = outbox({ store: { load: () => answers.shift()(), put() {}, remove() {} } });
  const sending = ["a", "b", "c"].map((body) => it.box.send(draft(body)));
  const results = await Promise.allSettled(sending);
  assert.deepEqual(results.map(({ reason, value }) => reason?.code ?? value.body), ["store_failed", "b", "c"]);
  assert.deepEqual(it.attempts.map(({ body }) => body), ["left", "b", "c"]);
  assert.deepEqual(it.unreadable.map(({ cause }) => cause?.message), ["gone", undefined]);
});

test("what is no entry is told once, and holds up nothing", async () => {
  const good = { nonce: "n", order: 1, request: draft("left", { nonce: "n" }), tried_at: null };
  const { tried_at: _, ...untried } = good;
  const bad = [null, "{", {}, untried, { ...good, order: "z" }, { ...good, request: null }, { ...good, nonce: "m" }];
  const it = outbox({ store: { load: () => [...bad, good], put() {}, remove() {} } });
  for (const body of ["a", "b"]) await it.box.send(draft(body));
  assert.deepEqual(it.attempts.map(({ body }) => body), ["left", "a", "b"]);
  assert.deepEqual(it.unreadable.map(({ code, cause }) => [code, cause]), bad.map((entry) => ["store_failed", entry]));
});

test("a store that never answers holds nobody beyond the end of the client", async () => {
  const never = () => new Promise(() => {});
  for (const method of ["load", "put", "remove"]) {
    const it = outbox({ store: { load: () => [], put() {}, remove() {}, [method]: never } });
    const sending = it.box.send(draft("x"));
    await new Promise(setImmediate);
    it.box.close();
    await assert.rejects(sending, { code: "closed" });
    await assert.rejects(it.box.send(draft("y")), { code: "closed" });
  }
});

test("a store that takes its time, now more and now less, changes no order", async () => {
  const kept = [];
  let turns = 40;
  const slow = {
    load: async () => [],
    remove: async () => {},
    put: async (entry) => {
      for (let left = (turns -= 5); left > 0; left--) await new Promise(setImmediate);
      if (entry.tried_at === null) kept.push(entry.request.body);
    },
  };
  const it = outbox({ store: slow });
  const bodies = ["1", "2", "3", "4"];
  await Promise.all(bodies.map((body) => it.box.send(draft(body))));
  assert.deepEqual([kept, it.attempts.map(({ body }) => body)], [bodies, bodies]);
});

test("the storage of a browser keeps the outboxes of two users apart", async () => {
  const { kept, storage } = webStorage();
  const [alice, bob] = ["alice", "bob"].map((name) => new WebStorageStore(name, storage));
  for (const [store, ...of] of [[alice, entry("b", 2)], [bob, entry("x", 1)], [alice, entry("a", 1)]]) store.put(...of);
  assert.deepEqual(bob.load(), [entry("x", 1)]);
  const it = outbox({ store: alice });
  await it.box.send(draft("new"));
  assert.deepEqual(it.attempts.map(({ body }) => body), ["a", "b", "new"]);
  assert.deepEqual([...kept.keys()].length, 1);
});

test("no name is the beginning of another one, whatever is in it", () => {
  const { storage } = webStorage();
  const names = ["al", "al.b", "al/b", "al%2Fb", "", "/", "b"];
  const stores = names.map((name) => new WebStorageStore(name, storage));
  for (const [place, store] of stores.entries()) {
    for (const nonce of [`${place}`, "b.n", "b/n"]) store.put(entry(nonce, place));
  }
  for (const [place, store] of stores.entries()) {
    assert.deepEqual(store.load().map(({ nonce, order }) => [nonce, order]), [`${place}`, "b.n", "b/n"].map((nonce) => [nonce, place]));
    store.remove("b.n");
    assert.equal(store.load().length, 2);
  }
});

test("an entry that somebody has broken is left out", () => {
  const { kept, storage } = webStorage();
  const store = new WebStorageStore("al", storage);
  for (const nonce of ["broken", "moved", "good"]) store.put(entry(nonce, 1));
  const [broken, moved] = kept.keys();
  kept.set(broken, "{").set(moved, JSON.stringify(entry("other", 1)));
  assert.deepEqual(store.load(), ["{", JSON.stringify(entry("other", 1)), entry("good", 1)]);
});

test("nonces differ and fit", () => {
  const nonces = new Set(Array.from({ length: 1_000 }, newNonce));
  assert.equal(nonces.size, 1_000);
  assert.ok([...nonces].every((nonce) => /^[0-9a-f]{32}$/.test(nonce)));
});

test("pauses grow to their longest, differ between clients, and never end", () => {
  const pauses = { delayMs: 100, delayMaxMs: 5_000, jitter: 0.5 };
  assert.deepEqual([0, 1, 2, 3, 10, 10_000].map((attempt) => pause(attempt, pauses, 0.5)), [100, 200, 400, 800, 5_000, 5_000]);
  assert.deepEqual([pause(0, pauses, 0), pause(0, pauses, 1)], [50, 150]);
});

test("a refusal that passes is tried again, an expired token where a new one can be had, and nothing else", () => {
  const body = (code, retryable) => ({ code, message: code, retryable, request_id: "r", retry_after_ms: retryable ? 30 : null });
  const retry = (code, retryable, canRenew) => refusal(code, body(code, retryable), canRenew).retry;
  assert.equal(retry("overloaded", true, false), true);
  assert.deepEqual([retry("unauthenticated", false, true), retry("token_revoked", false, true)], [false, false]);
  assert.deepEqual([retry("token_expired", false, true), retry("token_expired", false, false)], [true, false]);
  assert.equal(refusal("overloaded", body("overloaded", true), true).error.retryAfterMs, 30);
  const foreign = refusal("Invalid namespace", undefined, true);
  assert.deepEqual([foreign.retry, foreign.error.code, foreign.error.message], [false, "refused", "Invalid namespace"]);
});

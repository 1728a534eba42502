// The connection, with a stock socket that is never opened.
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { Connection } from "../dist/connection.js";
import { request } from "../dist/requests.js";

const PAUSES = { reconnectionDelay: 1, reconnectionDelayMax: 2 };

// A connected client whose server warns of the end of the token. `refreshed` is told each token that it gets.
function expiring(token, answer = () => ({ ok: true })) {
  const refreshed = new EventEmitter();
  const connection = new Connection({ url: "http://127.0.0.1:1", token, ...PAUSES });
  const { socket } = connection;
  const tell = (event, payload) => socket.listeners(event).forEach((listener) => listener(payload));
  socket.timeout = () => ({
    async emitWithAck(_, { token }) {
      const said = answer();
      refreshed.emit("token", token, said);
      return said;
    },
  });
  tell("session:ready", {});
  tell("auth:expiring", { expires_in_ms: 60_000 });
  return { connection, refreshed, tell };
}

test("a token function that fails at first is asked again before its token ends", async () => {
  let asked = 0;
  const { connection, refreshed } = expiring(async (reason) => {
    assert.equal(reason, "expiring");
    if (++asked < 3) throw new Error("the identity provider is away");
    return "new";
  });
  const [token] = await once(refreshed, "token");
  assert.deepEqual([token, asked, connection.state], ["new", 3, "connected"]);
  connection.close();
});

test("a token that ends as soon as the one before is replaced at half of its time", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let asked = 0;
  const { connection, refreshed, tell } = expiring(() => `token ${++asked}`);
  t.mock.timers.tick(1);
  await once(refreshed, "token");
  await new Promise(setImmediate);
  tell("auth:expiring", { expires_in_ms: 60_000 });
  t.mock.timers.tick(25_000);
  assert.equal(asked, 1);
  t.mock.timers.tick(5_000);
  await once(refreshed, "token");
  assert.equal(asked, 2);
  connection.close();
});

test("a token that comes just after the end of the one before is as good as one in time", async () => {
  let give;
  const { connection, refreshed, tell } = expiring(() => new Promise((resolve) => (give = resolve)));
  while (!give) await new Promise(setImmediate);
  tell("auth:expired", {});
  give("new");
  await once(refreshed, "token");
  await new Promise(setImmediate);
  const changes = [];
  connection.on("state", ({ state, error }) => changes.push([state, error?.code]));
  tell("disconnect", "transport close");
  connection.close();
  assert.deepEqual(changes, [["reconnecting", "unreachable"], ["closed", undefined]]);
});

test("a request that is not sent in time leaves nothing behind", async () => {
  const connection = new Connection({ url: "http://127.0.0.1:1", token: "token" });
  const on = connection.on.bind(connection);
  const waiting = new Set();
  connection.on = (event, handler) => {
    const stop = on(event, handler);
    waiting.add(handler);
    return () => (stop(), waiting.delete(handler));
  };
  await assert.rejects(request(connection, "ping", {}, { timeoutMs: 1 }), { code: "timeout", retryable: true });
  assert.equal(waiting.size, 0);
  connection.close();
});

test("a server that does not take the next token yet gets it again", async () => {
  const answers = [{ ok: false, error: { code: "unavailable", message: "later", retryable: true } }, { ok: true }];
  const { connection, refreshed } = expiring(() => "new", () => answers.shift());
  await once(refreshed, "token");
  const [, said] = await once(refreshed, "token");
  assert.equal(said.ok, true);
  connection.close();
});

test("a token function that keeps failing is asked a few times, and the end of the connection says why", async () => {
  let asked = 0;
  const last = new EventEmitter();
  const { connection, tell } = expiring(() => {
    if (++asked === 6) setImmediate(() => last.emit("asked"));
    throw new Error("away");
  });
  await once(last, "asked");
  const changes = [];
  connection.on("state", ({ state, error }) => changes.push([state, error?.code]));
  tell("disconnect", "transport close");
  connection.close();
  assert.deepEqual(changes, [["reconnecting", "token_failed"], ["closed", undefined]]);
});

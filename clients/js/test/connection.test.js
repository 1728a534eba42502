// The connection, with a stock socket that is never opened.
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { Connection } from "../dist/connection.js";

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

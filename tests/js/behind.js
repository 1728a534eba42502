// Clients of every kind behind a balancer: they talk, have nothing to say for longer than the balancer waits for a silent
// side, and talk again; see tests/cluster/deployed.rs.
import assert from "node:assert/strict";
import { once } from "node:events";
import { io } from "socket.io-client";
import legacy from "socket.io-client-2";
import { answer, env, tell } from "./client.js";

const PINGS = 10;
const KINDS = [
  [io, ["polling"]],
  [io, ["websocket"]],
  [io, ["polling", "websocket"]],
  [legacy, ["polling"]],
  [legacy, ["polling", "websocket"]],
];
const VALUES = [
  ["text é€😀", 1.5, null, { a: [true] }],
  [Buffer.from([0, 127, 255]), { deep: [Buffer.alloc(0)] }],
  [Buffer.alloc(300_000, 7)],
];

async function live(connect, transports) {
  const socket = connect(env("URL"), { transports, forceNew: true, reconnection: false });
  const name = `${connect === legacy ? "v2" : "v5"} ${transports}`;
  const ended = new Promise((_, reject) => {
    for (const event of ["connect_error", "disconnect"]) {
      socket.on(event, (why) => reject(new Error(`${name}: ${event} ${why}`)));
    }
  });
  const within = (promise, what) => answer(Promise.race([promise, ended]), `${name}: ${what}`);
  const talk = async () => {
    for (const values of VALUES) {
      const back = once(socket, "message-back");
      socket.emit("message", ...values);
      assert.deepEqual(await within(back, "an event"), values);
      const echo = new Promise((resolve) => socket.emit("message-with-ack", ...values, (...echo) => resolve(echo)));
      assert.deepEqual(await within(echo, "an answer"), values);
    }
  };
  await within(once(socket, "connect"), "connect");
  await talk();
  await within(new Promise((resolve) => {
    let pings = 0;
    socket.io.on("ping", () => { if (++pings === PINGS) resolve(); });
  }), `${PINGS} pings`);
  assert.equal(socket.io.engine.transport.name, transports.at(-1));
  await talk();
  socket.removeAllListeners("disconnect");
  socket.close();
}

await Promise.all(KINDS.map(([connect, transports]) => live(connect, transports)));
tell({ done: true });
process.exit(0);

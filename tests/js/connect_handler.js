// A client that emits in its connect handler, with `retries`, sends the event once and gets the ack before anything
// else; the suite of socket.io-client has this as `should not emit a packet twice in the 'connect' handler`.
import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { answer, env, tell } from "./client.js";

const CONNECTS = 20;
// A client that has to compile its code first is later than any server would wait.
const WARM_UP = 5;

for (let n = 1 - WARM_UP; n <= CONNECTS; n++) {
  const socket = io(env("URL"), { forceNew: true, retries: 3, transports: ["polling", "websocket"] });
  const [sent, received] = [[], []];
  const acked = new Promise((resolve) => {
    socket.io.engine.on("packetCreate", ({ data }) => sent.push(data));
    socket.io.engine.on("packet", ({ type, data }) => {
      received.push(type === "message" ? data.replace(/^0.*/, "CONNECT").replace(/^2.*/, "event") : type);
      if (data === "30[null]") resolve();
    });
  });
  socket.on("connect", () => socket.emit("message-with-ack", null));
  await answer(acked, "the ack");
  assert.deepEqual(sent, ["0", '20["message-with-ack",null]']);
  // The noop that ends a poll for the upgrade must not overtake the ack of an event under way.
  if (n > 0) assert.deepEqual(received, ["open", "CONNECT", "event", "30[null]"], `connect ${n}`);
  socket.close();
}
tell({ done: true });

// A stock client whose network is cut again and again; see tests/messaging/resume.rs and tests/cluster/serve_resume.rs.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { PATIENCE_MS, answer, client, env, events, must, tell } from "./client.js";
import { network } from "./cut.js";

const net = await network(env("URL"));
const socket = client(net.url, env("TOKEN"), { via: env("VIA"), timeout: 2_000 });

// What is known of the session that has just begun, or goes on.
async function session() {
  const [ready] = await answer(once(socket, "session:ready"), "session:ready");
  const { resumed, channels, server } = ready;
  tell({ session: { recovered: socket.recovered, resumed, channels, node: server.node } });
}

const commands = {
  cut: async () => {
    const gone = once(socket, "disconnect");
    net.cut();
    await answer(gone, "the end of the connection");
    tell({ cut: true });
  },
  heal: async () => {
    const next = session();
    net.heal();
    await next;
  },
  // The next session, whatever ends this one.
  next: session,
  // Everything of messages that has come, as soon as there are so many.
  got: async (count) => {
    const all = () => socket.received.filter(([name]) => name.startsWith("message:"));
    const deadline = Date.now() + PATIENCE_MS;
    while (all().length < Number(count) && Date.now() < deadline) await setTimeout(10);
    // What would come twice comes now.
    await must(socket, "ping", {});
    const got = all();
    tell({ got: got.map(([name, { channel_id, seq, rev, body, kind }]) => ({ name, channel_id, seq, rev, body, kind })) });
  },
  left: async () => {
    await events(socket, "channel:left", 1);
    tell({ left: socket.received.filter(([name]) => name === "channel:left").map(([, payload]) => payload) });
  },
};

const first = session();
socket.connect();
await first;
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(" ");
  if (command === "end") break;
  assert.ok(commands[command], command);
  await commands[command](...words);
}
socket.close();
net.close();
tell({ done: true });

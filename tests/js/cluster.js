// Stock clients on three nodes of a cluster (conformance profiles `cluster` and `cluster-recovery`); see tests/cluster/suite.rs. URLS: the nodes
// `one`, `two` and `three`, separated by commas.
import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { PATIENCE_MS, answer, env, tell } from "./client.js";

const urls = env("URLS").split(",");
const NAMES = ["one", "two", "three"];

const once = (socket, event) =>
  answer(new Promise((resolve) => socket.once(event, (...args) => resolve(args))), event);
const ask = (socket, ...args) => socket.timeout(PATIENCE_MS).emitWithAck(...args);

// With recovery, what is in the log has its offset as a further argument.
const withoutOffset = (args) => /^[\w-]{22}$/.test(args.at(-1)) ? args.slice(0, -1) : args;

// Every event `msg` of a client, until one with this mark has come from each node that sends it.
async function connect(index) {
  const socket = io(urls[index], { forceNew: true, transports: ["websocket"], query: { at: NAMES[index] } });
  socket.got = [];
  socket.on("msg", (...args) => socket.got.push(withoutOffset(args)));
  await once(socket, "connect");
  return socket;
}

// What everybody has got when a mark that was sent last has come. Events of one node to one room stay in order.
async function settled(from, sockets) {
  const mark = `mark ${Math.random()}`;
  const marked = sockets.map((socket) => answer(new Promise((resolve) => {
    const look = (text) => {
      if (text !== mark) return;
      socket.off("msg", look);
      resolve();
    };
    socket.on("msg", look);
  }), mark));
  from.emit("broadcast", null, mark);
  await Promise.all(marked);
  return sockets.map((socket) => socket.got.splice(0).filter(([text]) => text !== mark));
}

const sockets = await Promise.all([0, 1, 2].map(connect));
const [one, two, three] = sockets;
const send = (socket, event, ...args) => socket.emit(event, ...args);

// The nodes know each other.
for (const socket of sockets) {
  const deadline = Date.now() + PATIENCE_MS;
  while ((await ask(socket, "fetch", null)).length < 3) assert.ok(Date.now() < deadline, "three nodes meet");
}
for (const [index, socket] of sockets.entries()) {
  const { id, node, recovered } = await ask(socket, "whoami");
  assert.deepEqual([id, node, recovered], [socket.id, NAMES[index], false]);
  assert.equal(await ask(socket, "echo", index), index);
}

// Broadcasts.
await ask(one, "join", "r");
await ask(two, "join", "r");
await ask(two, "join", "x");
send(one, "broadcast", "r", "to r", { a: [1, "\u00e9"] }, Buffer.from([0, 255]));
send(one, "broadcast_others", null, "to others");
send(one, "broadcast_except", "r", "x", "not to x");
send(one, "broadcast_local", null, "local");
const [first, second, third] = await settled(one, sockets);
const texts = (got) => got.map(([text]) => text);
assert.deepEqual(texts(first), ["to r", "not to x", "local"]);
assert.deepEqual(texts(second), ["to r", "to others"]);
assert.deepEqual(texts(third), ["to others"]);
assert.deepEqual(second[0].slice(1), [{ a: [1, "\u00e9"] }, Buffer.from([0, 255])]);

// Nothing else is on its way to them, so they get what may be dropped.
send(one, "broadcast_volatile", "r", "volatile");
assert.deepEqual((await settled(one, sockets)).map(texts), [["volatile"], ["volatile"], []]);

// Order of one sender to one room.
for (let n = 0; n < 200; n++) send(three, "broadcast", "r", n);
assert.deepEqual(texts((await settled(three, sockets))[1]), [...Array(200).keys()]);

// Sockets of all nodes.
await ask(two, "set", { name: "bert" });
await ask(two, "set", { age: 3 });
const fetched = await ask(one, "fetch", "r");
assert.deepEqual(fetched.map(({ id }) => id).sort(), [one.id, two.id].sort());
const bert = fetched.find(({ id }) => id === two.id);
assert.deepEqual(bert.rooms, [two.id, "r", "x"].sort());
assert.deepEqual([bert.data, bert.query.at], [{ name: "bert", age: 3 }, "two"]);

// Questions to servers and to clients.
const servers = await ask(one, "ask_servers", "how are you");
assert.deepEqual([servers.error, servers.answers.sort()], [null, [["three", "how are you"], ["two", "how are you"]]]);
for (const socket of sockets) socket.on("question", (question, reply) => reply(`${question} ${socket.id}`));
const clients = await ask(three, "ask", null, "who", 5000);
assert.deepEqual([clients.error, clients.answers.sort()], [null, sockets.map(({ id }) => `who ${id}`).sort()]);
two.off("question");
two.on("question", () => {});
const some = await ask(three, "ask", "r", "who", 300);
assert.ok(some.error);
assert.deepEqual(some.answers, [`who ${one.id}`]);

// Rooms and ends of sockets of other nodes.
await ask(three, "sockets_join", "r", "s");
send(one, "broadcast", "s", "to s");
assert.deepEqual((await settled(one, sockets)).map(texts), [["to s"], ["to s"], []]);
await ask(three, "sockets_leave", "s", "s");
send(one, "broadcast", "s", "to nobody");
assert.deepEqual((await settled(one, sockets)).map(texts), [[], [], []]);
const ended = [one, two].map((socket) => once(socket, "disconnect"));
await ask(three, "disconnect_room", "r", true);
for (const [reason] of await Promise.all(ended)) assert.match(reason, /server disconnect|transport close/);
assert.deepEqual((await ask(three, "fetch", null)).map(({ id }) => id), [three.id]);

sockets.forEach((socket) => socket.close());
tell({ done: true });

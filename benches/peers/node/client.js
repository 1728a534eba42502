// The stock client, measured by benches/clients, which says what the lines on standard input mean: node client.js URL
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const url = process.argv[2];
let sockets = [];
let heard = 0;
let wanted = Infinity;

const say = (word) => process.stdout.write(`${word}\n`);

function onMessage() {
  if (++heard === wanted) say("done");
}

async function connect(count) {
  for (let i = 0; i < count; i++) {
    const socket = io(url, { transports: ["websocket"], forceNew: true });
    socket.on("msg", onMessage);
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("connect_error", reject));
    socket.emit("join", "all");
    // Its answer says that the room is joined.
    await socket.emitWithAck("echo", "");
    sockets.push(socket);
  }
}

async function echo(socket, text, count) {
  for (let i = 0; i < count; i++) {
    const answer = await socket.emitWithAck("echo", text);
    if (answer.length !== text.length) throw new Error("the answer is not the question");
  }
}

async function back(socket, bytes, count) {
  let resolve;
  socket.on("back", (answer) => resolve(answer));
  for (let i = 0; i < count; i++) {
    socket.emit("back", bytes);
    const answer = await new Promise((it) => (resolve = it));
    if (answer.length !== bytes.length) throw new Error("what was sent does not come back");
  }
  socket.off("back");
}

say("started");
for await (const line of createInterface({ input: process.stdin })) {
  const [word, ...rest] = line.split(" ");
  const [first, second] = rest.map(Number);
  if (word === "connect") {
    await connect(first);
    say("ready");
  } else if (word === "echo") {
    const text = "x".repeat(first);
    await Promise.all(sockets.map((socket) => echo(socket, text, second)));
    say("done");
  } else if (word === "back") {
    const bytes = Buffer.alloc(first, 7);
    await Promise.all(sockets.map((socket) => back(socket, bytes, second)));
    say("done");
  } else if (word === "hear") {
    heard = 0;
    wanted = first * sockets.length;
    say("listening");
  } else {
    throw new Error(`what is ${line}?`);
  }
}
process.exit(0);

// The reference server twice, with the events of tests/differential/application.rs: `patient` with its default
// deadlines and `hasty` with short ones. Prints their ports and what they are; ends with its input.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Server } from "socket.io";

const { PATIENT, HASTY, SLOW_MS, LONG, MANY } = process.env;

// An event that the reference takes for a mistake of the application must not end it.
process.on("uncaughtException", (error) => console.error(error));

function talk(socket) {
  socket.emit("auth", socket.handshake.auth);
  socket.on("message", (...args) => socket.emit("message-back", ...args));
  socket.on("message-with-ack", (...args) => args.pop()(...args));
  socket.on("1", (...args) => socket.emit("number-back", ...args));
  socket.on("leave-me", () => socket.disconnect());
  socket.on("close-me", () => socket.disconnect(true));
  socket.on("many", () => socket.emit("many", ...Array.from({ length: Number(MANY) }, (_, n) => Buffer.from([n]))));
  socket.on("long", () => socket.emit("long", "x".repeat(Number(LONG))));
}

async function serve(options) {
  const http = createServer();
  const io = new Server(http, options);
  io.on("connection", talk);
  io.of("/custom").on("connection", talk);
  io.of("/refusing").on("connection", talk).use((socket, next) => {
    const refusal = Object.assign(new Error("not authorized"), { data: { code: 42 } });
    next(socket.handshake.auth.token === "good" ? undefined : refusal);
  });
  io.of("/silent").use((socket, next) => next(new Error("no")));
  io.of("/slow").on("connection", talk).use((socket, next) => setTimeout(next, Number(SLOW_MS)));
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  return http.address().port;
}

// A package need not export its package.json.
function version(name) {
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(file, "utf8")).version;
}

const names = ["socket.io", "engine.io", "socket.io-parser"];
const versions = Object.fromEntries(names.map((name) => [name, version(name)]));
const [patient, hasty] = [await serve(JSON.parse(PATIENT)), await serve(JSON.parse(HASTY))];
console.log(JSON.stringify({ patient, hasty, versions }));
process.stdin.on("data", () => console.log(JSON.stringify({ done: true })));
process.stdin.on("end", () => process.exit(0));

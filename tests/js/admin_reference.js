// The reference server with its Admin UI instrumentation, and the events of tests/admin/application.rs. Prints its
// port; ends with its input.
import { createServer } from "node:http";
import { instrument } from "@socket.io/admin-ui";
import { Server } from "socket.io";

const { MODE, READ_ONLY, USERNAME, HASH } = process.env;

const http = createServer();
const io = new Server(http);
function talk(socket) {
  socket.on("join", (room, ack) => (socket.join(room), ack()));
  socket.on("leave", (room, ack) => (socket.leave(room), ack()));
  socket.on("name", (name, ack) => ((socket.data.name = name), ack()));
  socket.on("echo", (...args) => socket.emit("echoed", ...args));
  socket.on("bye", () => socket.disconnect());
}

io.on("connection", talk);
io.of("/chat").on("connection", talk);
instrument(io, {
  auth: { type: "basic", username: USERNAME, password: HASH },
  mode: MODE,
  readonly: READ_ONLY === "true",
  serverId: "one",
});
await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
console.log(JSON.stringify({ port: http.address().port }));
process.stdin.on("data", () => console.log(JSON.stringify({ done: true })));
process.stdin.on("end", () => process.exit(0));

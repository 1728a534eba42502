// The reference server with the events of tests/client_library/application.rs. Prints its port; ends with its input.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, {
  connectionStateRecovery: { maxDisconnectionDuration: 60_000 },
  pingInterval: Number(process.env.PING_INTERVAL),
  pingTimeout: Number(process.env.PING_TIMEOUT),
});
const remembered = [];

function talk(socket) {
  socket.on("add", (a, b, answer) => answer(a + b));
  socket.on("who am i", (answer) => answer(socket.id));
  socket.on("query", (name, answer) => answer(socket.handshake.query[name] ?? null));
  socket.on("echo", (...args) => socket.emit("echoed", ...args));
  socket.on("bytes", (bytes, answer) => answer(bytes));
  socket.on("ask me", async () => socket.emit("told", await socket.timeout(5_000).emitWithAck("your age?", "please")));
  socket.on("join", (room, answer) => { socket.join(room); answer(); });
  socket.on("shout", (room, text) => io.of(socket.nsp.name).to(room).emit("shouted", text));
  socket.on("how many", (answer) => answer(io.of(socket.nsp.name).sockets.size));
  socket.on("put me out", () => socket.disconnect());
  socket.on("remember", (nonce, answer) => {
    if (!remembered.includes(nonce)) remembered.push(nonce);
    answer(nonce);
  });
  socket.on("remembered", (answer) => answer(remembered));
}

io.on("connection", talk);
io.of("/custom").on("connection", (socket) => {
  socket.emit("auth", socket.handshake.auth);
  talk(socket);
});

// Lets in whoever comes for the third time.
let attempts = 0;
io.of("/busy").use((_, next) => {
  const data = { code: "overloaded", retryable: true, retry_after_ms: 20 };
  next(++attempts < 3 ? Object.assign(new Error("busy"), { data }) : undefined);
});
io.of("/closed").use((socket, next) => {
  const { token } = socket.handshake.auth;
  const code = token === "fresh" ? undefined : token === "old" ? "token_expired" : "unauthenticated";
  next(code && Object.assign(new Error("no"), { data: { code, retryable: false } }));
}).on("connection", talk);

io.of("/topics").on("connection", (socket) => {
  socket.on("subscribe", (topic, done) => {
    if (topic === "secret") return done({ ok: false, error: { code: "forbidden", message: "no" } });
    socket.join(topic);
    done({ ok: true });
  });
  socket.on("unsubscribe", (topic) => socket.leave(topic));
  socket.on("publish", (topic, value, done) => {
    io.of("/topics").to(topic).emit("message", topic, value);
    done({ ok: true });
  });
  socket.on("rooms", (answer) => answer([...socket.rooms]));
});

http.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: http.address().port })));
process.stdin.on("data", () => {});
process.stdin.on("end", () => process.exit(0));

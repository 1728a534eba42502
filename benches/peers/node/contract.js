// The `load` contract on npm socket.io:
//   echo ...args      acks its arguments
//   join ROOM         acks
//   leave ROOM        acks
//   back ...args      emits `back` with its arguments to the sender
//   broadcast ROOM X  emits `msg` X to the whole room, the sender included
import { createServer } from "node:http";
import { Server } from "socket.io";

export function serve(port, options = {}) {
  const http = createServer();
  const io = new Server(http, { maxHttpBufferSize: 1e6, ...options });

  io.on("connection", (socket) => {
    socket.on("echo", (...args) => {
      const ack = args.pop();
      if (typeof ack === "function") ack(...args);
    });
    socket.on("back", (...args) => socket.emit("back", ...args));
    socket.on("join", async (room, ack) => {
      await socket.join(room);
      ack?.();
    });
    socket.on("leave", (room, ack) => {
      socket.leave(room);
      ack?.();
    });
    socket.on("broadcast", (room, payload) => io.to(room).emit("msg", payload));
  });

  http.listen({ port, host: "127.0.0.1", backlog: 4096 }, () => console.log(`listening on ${port}`));
}

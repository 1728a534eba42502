// A stock Node.js server with the contract of the conformance profile `cluster` (examples/conformance/cluster.rs), on
// `createAdapter` of @socket.io/redis-adapter.
import { createServer } from "node:http";
import { createClient, createCluster } from "@redis/client";
import { createAdapter } from "@socket.io/redis-adapter";
import { Server } from "socket.io";

// To a Redis server, or by `redis-cluster://` to a Redis Cluster.
export async function connectRedis(url) {
  const clustered = /^redis-cluster:\/\/([^?]+)/.exec(url);
  const client = clustered ? createCluster({ rootNodes: [{ url: `redis://${clustered[1]}` }] }) : createClient({ url });
  client.on("error", (error) => console.error(`redis: ${error.message}`));
  await client.connect();
  return client;
}

// Returns the server, its address and a function that ends it.
export async function start(redis, key, name, options = {}) {
  const [publisher, subscriber] = [await connectRedis(redis), await connectRedis(redis)];
  const http = createServer();
  const io = new Server(http, { adapter: createAdapter(publisher, subscriber, { key, ...options }) });
  io.on("question", (question, reply) => reply?.([name, question]));
  io.on("connection", (socket) => contract(io, socket, name));
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    await io.close();
    await Promise.all([publisher.close(), subscriber.close()]);
  };
  return { io, url: `http://127.0.0.1:${http.address().port}`, close };
}

function contract(io, socket, name) {
  const within = (operator, room) => (room === null ? operator : operator.to(room));
  const everybody = (room) => within(io.except([]), room);
  socket.on("echo", (...args) => args.pop()(...args));
  socket.on("whoami", (reply) => reply({ id: socket.id, node: name, recovered: socket.recovered }));
  socket.on("set", (more, reply) => {
    socket.data.set = { ...socket.data.set, ...more };
    reply();
  });
  socket.on("join", (room, reply) => {
    socket.join(room);
    reply();
  });
  socket.on("leave", (room, reply) => {
    socket.leave(room);
    reply();
  });
  socket.on("broadcast", (room, ...args) => everybody(room).emit("msg", ...args));
  socket.on("broadcast_others", (room, ...args) => within(socket.broadcast, room).emit("msg", ...args));
  socket.on("broadcast_volatile", (room, ...args) => within(io.volatile, room).emit("msg", ...args));
  socket.on("broadcast_local", (room, ...args) => within(io.local, room).emit("msg", ...args));
  socket.on("broadcast_except", (room, except, ...args) => everybody(room).except(except).emit("msg", ...args));
  socket.on("ask_servers", async (question, reply) => {
    const asked = await io.serverSideEmitWithAck("question", question).then(
      (answers) => ({ error: null, answers }),
      (error) => ({ error: error.message, answers: error.responses }),
    );
    reply(asked);
  });
  socket.on("ask", (room, question, millis, reply) => {
    everybody(room).timeout(millis).emit("question", question, (error, answers) => {
      reply({ error: error?.message ?? null, answers });
    });
  });
  socket.on("fetch", async (room, reply) => {
    const sockets = await everybody(room).fetchSockets();
    reply(sockets.map(({ id, rooms, data, handshake }) => ({
      id, rooms: [...rooms].sort(), data: data.set ?? {}, query: handshake.query,
    })));
  });
  const change = (method) => async (room, other, reply) => {
    everybody(room)[method](other);
    await io.fetchSockets();
    reply();
  };
  socket.on("sockets_join", change("socketsJoin"));
  socket.on("sockets_leave", change("socketsLeave"));
  socket.on("disconnect_room", (room, close, reply) => {
    reply();
    io.in(room).disconnectSockets(close);
  });
}

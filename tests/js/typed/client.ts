// A program with the stock client and the declarations of imks. The compiler accepts it, and refuses each line below an
// `@ts-expect-error`.
import { io, type Socket } from "socket.io-client";
import type { ClientToServerEvents, ServerToClientEvents } from "../../../clients/types/imks";

const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io("http://127.0.0.1:3000", { auth: { token: "…" } });

socket.on("session:ready", async ({ channels, user }) => {
  const [channel] = channels;
  if (!channel) return;
  const answer = await socket.emitWithAck("message:send", { channel_id: channel.channel_id, body: `I am ${user.username}` });
  if (answer.ok) {
    const { message, duplicate } = answer.data;
    console.log(message.seq + 1, message.author.username.length, duplicate === false, answer.meta.server_time.length);
    // @ts-expect-error: it has no such field
    console.log(message.text);
  } else {
    console.log(answer.error.code === "rate_limited", answer.error.retry_after_ms?.toFixed());
    // @ts-expect-error: there is no such code
    console.log(answer.error.code === "too_fast");
  }
  // @ts-expect-error: an answer is a success or an error
  console.log(answer.data.message);
});

socket.on("message:new", (message) => {
  const poll = message.poll?.options.map(({ text, votes }) => `${text}: ${votes ?? "?"}`);
  console.log(message.type === "poll" && poll, message.attachments[0]?.filename, message.reactions["👍"]?.count);
  // @ts-expect-error: there is no such type
  console.log(message.type === "picture");
});

socket.on("read:updated", (read) => console.log(read.read_seq));

socket.emit("history", { channel_id: "…", limit: 50 }, (answer) => {
  if (answer.ok) console.log(answer.data.messages.length, answer.data.seq_range?.[1].toFixed());
});

socket.emit("schedule:update", { id: "…", body: "later" }, () => {});
socket.emit("bookmark:update", { channel_id: "…", message_id: "…", note: null }, () => {});

// @ts-expect-error: there is no such event
socket.emit("message:sned", { channel_id: "…", body: "…" }, () => {});
// @ts-expect-error: channel_id is missing
socket.emit("message:send", { body: "…" }, () => {});
// @ts-expect-error: it must be text
socket.emit("message:send", { channel_id: "…", body: 5 }, () => {});
// @ts-expect-error: no such event is sent by the server
socket.on("message:gone", () => {});

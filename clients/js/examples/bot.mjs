// A bot that answers every message once, also those that were written while it was not running: node bot.mjs URL TOKEN.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createClient } from "@imks/client";

const [, , url, token, file = "bot.json"] = process.argv;
const client = createClient({ url, token });
const { channels, user } = await client.connect();
const channel = client.channel(channels[0].channel_id);
const from = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : "now";

for await (const { type, message, cursor } of channel.messages({ from })) {
  if (type === "message" && message.author.id !== user.id && message.body.endsWith("?")) {
    // The nonce is made from the question: if the bot ends before it has kept its place, it answers no
    // question twice, for as long as the server remembers nonces: a day.
    await channel.send({ body: "Good question.", reply_to_message_id: message.id, nonce: `answer-${message.id}` });
  }
  writeFileSync(file, JSON.stringify(cursor));
}

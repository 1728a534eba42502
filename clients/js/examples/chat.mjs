// A chat on the terminal: node chat.mjs URL TOKEN. What is typed while the server is away is sent when it is back.
import { createInterface } from "node:readline";
import { createClient } from "@imks/client";

const [, , url, token] = process.argv;
const client = createClient({ url, token });
client.on("state", ({ state, error }) => console.log(`(${state}${error ? `: ${error.message}` : ""})`));
client.on("failed", (error, { request }) => console.log(`(not sent: ${request.body}: ${error.message})`));

const { channels } = await client.connect();
const channel = client.channel(channels[0].channel_id);
let last;
createInterface({ input: process.stdin })
  .on("line", (body) => (last = channel.send({ body }).catch(() => {}))) // `failed` tells it
  .on("close", async () => (await last, client.close()));

for await (const event of channel.messages({ from: { last: 20 } })) {
  if (event.type === "message") console.log(`${event.message.author.username}: ${event.message.body}`);
  if (event.type === "deleted") console.log(`(#${event.seq} was deleted)`);
}

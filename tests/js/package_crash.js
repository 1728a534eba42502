// @imks/client through every death of the server: two people send and read all the time; in the end each has everything,
// once.
import assert from "node:assert/strict";
import { answer, env, rising, tell, words } from "./client.js";
import { client, history, Reader } from "./package_reader.js";

const IN_OUTBOX = 8;
const word = words();
const people = [client(env("URL"), env("TOKEN_ALICE")), client(env("URL"), env("TOKEN_BOB"))];
const [{ channels }] = await answer(Promise.all(people.map((person) => person.connect())), "the sessions");
const [{ channel_id }] = channels;
const readers = people.map((person) => new Reader(person.channel(channel_id).messages()));
await answer(Promise.all(readers.map(({ stream }) => stream.ready())), "the places");

let isOver = false;
const acked = [];
async function talk(person, name) {
  const channel = person.channel(channel_id);
  const written = [];
  const sent = [];
  for (let n = 0; !isOver; n++) {
    const body = `${name} ${n}`;
    written.push(body);
    sent.push(channel.send({ body }).then((message) => (acked.push(message), message)));
    if (n >= IN_OUTBOX) await sent[n - IN_OUTBOX];
    if (acked.length % 10 === 0) tell({ acked: acked.length });
  }
  assert.deepEqual((await Promise.all(sent)).map(({ body }) => body), written);
  return written;
}

const talking = people.map((person, who) => talk(person, `person ${who} message`));
Promise.all(talking).catch((error) => (console.error(error), process.exit(1)));
await word("finish");
isOver = true;
const written = await answer(Promise.all(talking), "the last acks");
const stored = await history(people[0], channel_id);
assert.ok(rising(stored.map(({ seq }) => seq)));
for (const reader of readers) {
  await reader.until(() => reader.messages.length === stored.length, `${stored.length} messages`);
  assert.deepEqual(reader.messages.map(({ id, body }) => [id, body]), stored.map(({ id, body }) => [id, body]));
}
for (const [who, mine] of written.entries()) {
  const theirs = stored.map(({ body }) => body).filter((body) => body.startsWith(`person ${who}`));
  assert.deepEqual(theirs, mine, "stored once, in order");
}
for (const person of people) person.close();
await answer(Promise.all(readers.map(({ over }) => over)), "the ends");
tell({ done: true, acked: acked.length, stored: stored.length });

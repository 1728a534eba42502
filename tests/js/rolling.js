// Many clients behind a balancer while the nodes of a cluster are restarted one after the other: stock clients over every
// transport, and @imks/client. A ledger says what was acknowledged, and each client what it has seen and how long it was
// away; see tests/cluster/rolling.rs.
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { connect, env, must, rising, tell, words } from "./client.js";
import { client as packaged, history, Reader } from "./package_reader.js";

const [url, tokens] = [env("URL"), env("TOKENS").split(",")];
const VIA = ["websocket", "upgrade", "websocket", "polling"];
const [STOCK, PACKAGED] = [24, 6];
const WRITERS = 8;
const PAUSE_MS = 250;
const ACK_TIMEOUT_MS = 2_000;
// The defaults of the stock client would be a second, and half a second more or less.
const pauses = { reconnectionDelay: 500, reconnectionDelayMax: 1_000 };

const acked = new Map(); // text → number
const absences = []; // {from, to, ms, at, resumed}
let isOver = false;

// Notes how long a client is away, and where it comes back to.
function watch(who, session, on) {
  const state = { who, node: session.server.node, since: null };
  on("disconnect", (reason) => (state.since ??= { at: performance.now(), reason }));
  on("session:ready", ({ server, resumed }) => {
    if (state.since) {
      const { at, reason } = state.since;
      absences.push({ who, from: state.node, to: server.node, reason, at, ms: performance.now() - at, resumed });
    }
    [state.node, state.since] = [server.node, null];
  });
}

// A stock client: what it missed it asks for, and nothing comes twice or before what was there already.
class Stock {
  messages = new Map(); // number → text
  live = new Set();
  last = 0; // the last live number of this connection

  constructor(socket, channel_id, name) {
    Object.assign(this, { socket, channel_id, name });
    watch(name, socket.session, (event, handler) => socket.on(event, handler));
    socket.on("disconnect", () => (this.last = 0));
    socket.on("message:new", (message) => this.take(message));
    socket.on("session:ready", () => this.catchUp().catch(() => {}));
  }

  take({ seq, body }) {
    assert.ok(!this.live.has(seq), `${this.name} got ${seq} twice`);
    assert.ok(seq > this.last, `${this.name} got ${seq} after ${this.last}`);
    this.live.add(seq);
    this.last = seq;
    this.messages.set(seq, body);
  }

  // Everything up to now; a connection that ends meanwhile begins again with the next session.
  async catchUp() {
    for (;;) {
      let seq = 0;
      while (this.messages.has(seq + 1)) seq++;
      const { channels } = await must(this.socket, "sync", { channels: [{ channel_id: this.channel_id, seq, rev: 0 }] });
      const fresh = (channels[0]?.messages ?? []).filter((message) => !this.messages.has(message.seq));
      for (const message of fresh) this.messages.set(message.seq, message.body);
      if (fresh.length === 0) return;
    }
  }

  // Sends until it is acknowledged. What was sent twice is stored once, by its nonce.
  async send(body) {
    const request = { channel_id: this.channel_id, body, nonce: body };
    for (;;) {
      while (!this.socket.connected) await pause(20);
      const answer = await this.socket.timeout(ACK_TIMEOUT_MS).emitWithAck("message:send", request).catch(() => null);
      if (answer?.ok) return answer.data.message;
      if (answer) assert.equal(answer.error.retryable, true, JSON.stringify(answer));
      await pause(answer?.error.retry_after_ms ?? 50);
    }
  }
}

async function write(send, name) {
  for (let n = 0; !isOver; n++) {
    const { seq, body } = await send(`${name} ${n}`);
    acked.set(body, seq);
    if (acked.size % 20 === 0) tell({ acked: acked.size });
    await pause(PAUSE_MS * (0.5 + Math.random()));
  }
}

const word = words();
const stock = [];
for (let n = 0; n < STOCK; n++) {
  const socket = await connect(url, tokens[n % tokens.length], { via: VIA[n % VIA.length], ...pauses });
  stock.push(new Stock(socket, socket.session.channels[0].channel_id, `stock ${n} (${VIA[n % VIA.length]})`));
}
const { channel_id } = stock[0];
const people = [];
for (let n = 0; n < PACKAGED; n++) {
  const client = packaged(url, tokens[n % tokens.length], pauses);
  watch(`package ${n}`, await client.connect(), (event, handler) => client.socket.on(event, handler));
  people.push({ client, reader: new Reader(client.channel(channel_id).messages({ from: "start" })) });
}
await Promise.all(people.map(({ reader }) => reader.stream.ready()));

const writing = [
  ...stock.slice(0, WRITERS - 2).map((it) => write((body) => it.send(body), it.name)),
  ...people.slice(0, 2).map(({ client }, n) => write((body) => client.channel(channel_id).send({ body }), `package ${n}`)),
];
Promise.all(writing).catch((error) => (console.error(error), process.exit(1)));
tell({ ready: true });
await word("finish");
isOver = true;
await Promise.all(writing);

const stored = await history(people[0].client, channel_id);
assert.ok(stored[0].seq === 1 && rising(stored.map(({ seq }) => seq)), "no hole");
assert.deepEqual(new Map(stored.map(({ seq, body }) => [body, seq])), acked, "what was acknowledged is stored, once, and nothing else");
assert.equal(stored.length, acked.size);
const all = stored.map(({ seq, body }) => [seq, body]);
for (const it of stock) {
  await it.catchUp();
  const seen = [...it.messages].sort(([one], [other]) => one - other);
  assert.deepEqual(seen, all, `${it.name} has everything`);
}
for (const { reader } of people) {
  await reader.until(() => reader.messages.length === stored.length, `${stored.length} messages`);
  assert.deepEqual(reader.messages.map(({ seq, body }) => [seq, body]), all);
}
for (const { socket } of stock) socket.close();
for (const { client } of people) client.close();
tell({ done: true, acked: acked.size, clients: STOCK + PACKAGED, absences });
process.exit(0);

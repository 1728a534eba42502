// A reader against a server, in random interleavings: whatever is lost, doubled, late or cut, the reader's copy becomes the
// server's.
import assert from "node:assert/strict";
import { test } from "node:test";
import { HOLE_MS, Merger, PENDING_MAX } from "../dist/merge.js";
import { apply } from "../dist/index.js";
import { LIMIT, random, Server } from "./server.js";

const RUNS = Number(process.env.RUNS ?? 400);
const STEPS = 300;
const BUFFER = 8;

// What a reader keeps, and what it was promised.
class Reader {
  messages = [];
  next = 1;
  counts = {};

  read(event) {
    this.counts[event.type] = (this.counts[event.type] ?? 0) + 1;
    if (event.type === "message") {
      assert.equal(event.message.seq, this.next, "the next message comes next");
      this.next++;
    } else if (event.type === "gap") {
      assert.equal(event.after, this.next - 1);
      assert.ok(event.before > this.next, "a gap has something in it");
      this.next = event.before;
    } else if (event.type === "removed") {
      this.next = Math.max(this.next, event.until_seq + 1);
    } else if (event.type === "reset") {
      this.next = event.cursor.seq + 1;
    } else if (event.type === "updated" || event.type === "deleted") {
      assert.ok(event.id <= event.cursor.id, "no change comes before its message");
    }
    assert.equal(event.cursor.seq, this.next - 1, "a cursor is the place after its event");
    this.messages = apply(this.messages, event);
  }
}

class World {
  now = 0;
  wire = [];
  isConnected = false;
  asked = null;
  backup = null;
  // The streamed messages whose last piece did not arrive.
  torn = new Set();

  constructor(seed, gaps) {
    this.random = random(seed);
    this.server = new Server();
    this.reader = new Reader();
    this.gaps = gaps;
    this.merger = new Merger({ seq: 0, rev: 0, id: null }, 0, { buffer: BUFFER, gaps, userId: "me" });
    this.server.listeners.add((event) => this.isConnected && this.wire.push(event));
  }

  chance(part) {
    return this.random() < part;
  }

  any() {
    const { messages } = this.server;
    // Mostly new ones.
    return messages[messages.length - 1 - Math.floor(this.random() ** 3 * messages.length)];
  }

  talk() {
    const what = this.random();
    if (what < 0.35) this.server.send(`message ${this.random()}`);
    else if (what < 0.42) this.server.send("…", { state: "active", offset: 1 });
    else if (what < 0.55) this.server.react(this.any(), this.chance(0.5) ? "a" : "b", this.chance(0.3));
    else if (what < 0.68) this.server.edit(this.any(), `edited ${this.random()}`);
    else if (what < 0.73) this.server.delete(this.any());
    else if (what < 0.93) this.server.append(this.any(), "π😀");
    else if (what < 0.98) this.server.finish(this.any());
    else if (what < 0.995) this.server.retain(Math.floor(this.server.seq * this.random()));
    else this.remember();
  }

  // A restored server has another history: until it has grown beyond the old one, everybody can see that.
  remember() {
    if (!this.backup) this.backup = this.server.backup();
    else if (this.reader.next - 1 > this.backup.messages.length && !this.asked) {
      this.cut();
      this.server.restore(this.backup);
      this.backup = null;
      this.connect();
      this.settle();
    }
  }

  cut() {
    this.isConnected = false;
    this.wire = [];
    if (this.asked) this.merger.resync();
    this.asked = null;
  }

  connect() {
    this.isConnected = true;
    this.merger.resync();
  }

  hear() {
    const event = this.wire.shift();
    if (!event) return;
    // What a slow connection does not get: states that are followed by newer ones, and pieces of streams.
    const isLossy = ["reaction:updated", "message:append", "channel:horizon"].includes(event.name);
    const { id } = event.payload;
    this.torn.delete(id);
    if (isLossy && this.chance(0.2)) return void (event.name === "message:append" && this.torn.add(id));
    this.merger.live(event, this.now);
    if (this.chance(0.05)) this.merger.live(structuredClone(event), this.now);
  }

  ask() {
    if (!this.isConnected || this.asked) return;
    const request = this.merger.next(this.now);
    if (request) this.asked = { request, stages: ["begin", "make", "arrive"] };
  }

  // A request arrives some time after it was sent, the answer is made some time after that, and arrives later still.
  answer() {
    const { asked, server } = this;
    if (!asked) return;
    const { ask } = asked.request;
    const stage = asked.stages.shift();
    if (stage === "begin") asked.make = server.answer(asked.request);
    if (stage === "make") asked.made = asked.make();
    if (stage !== "arrive") return;
    this.asked = null;
    if (ask === "sync") this.merger.synced(asked.made, this.now);
    else if (ask === "history") this.merger.page(asked.made, this.now);
    else this.merger.got(asked.made);
  }

  // A piece is lost, the next one shows it, and the text is asked for.
  tear() {
    if (!this.isConnected) return;
    this.settle();
    const message = this.server.present().findLast(({ stream }) => stream?.state === "active");
    if (!message) return;
    this.server.append(message, "lost");
    this.wire.pop();
    this.torn.add(message.id);
    this.server.append(message, "heard");
    this.hear();
    this.ask();
  }

  // While a text is asked for, its message is deleted, ends or changes, and that may be heard before the answer.
  overtake() {
    if (!this.asked || this.asked.request.ask === "history") return;
    const { ids, seq } = this.asked.request;
    const isAsked = (message) => ids?.includes(message.id) ?? (message.seq <= seq && message.stream?.state === "active");
    const message = this.server.present().findLast(isAsked);
    if (this.chance(0.3)) this.server.delete(message);
    else if (this.chance(0.5)) this.server.finish(message);
    else this.server.react(message, "a");
    while (ids && this.wire.length > 0) this.hear();
  }

  read() {
    const event = this.merger.take();
    if (event) this.reader.read(event);
    return event !== undefined;
  }

  // The reader is told to go on from the last event that it has read, as after a restart of its program.
  restart() {
    if (!this.cursor) return;
    this.cut();
    this.merger = new Merger(this.cursor, 0, { buffer: BUFFER, gaps: this.gaps, userId: "me" });
    this.connect();
  }

  step() {
    const what = this.random();
    if (this.chance(0.01)) this.tear();
    if (this.chance(0.1)) this.overtake();
    if (what < 0.4) this.talk();
    else if (what < 0.65) this.hear();
    else if (what < 0.72) this.ask();
    else if (what < 0.82) this.answer();
    else if (what < 0.93) this.read();
    else if (what < 0.95) this.now += HOLE_MS * this.random();
    else if (what < 0.965) this.isConnected ? this.cut() : this.connect();
    else if (what < 0.97) this.merger.heads(this.server.heads());
    else if (what < 0.985) this.merger.resync();
    else if (this.chance(0.3)) for (let many = 0; many < LIMIT * 4; many++) this.talk();
    const bound = BUFFER + 3 * LIMIT + PENDING_MAX + 4;
    assert.ok(this.merger.waiting <= bound, `${this.merger.waiting} events wait`);
  }

  // Everything arrives, is asked and read.
  settle() {
    if (!this.isConnected) this.connect();
    for (let rounds = 0; ; rounds++) {
      assert.ok(rounds < 10_000, "it comes to an end");
      while (this.wire.length > 0) this.merger.live(this.wire.shift(), this.now);
      this.now += HOLE_MS;
      const heard = [this.read(), this.asked !== null];
      this.ask();
      heard.push(this.asked !== null);
      this.answer();
      if (!heard.includes(true) && this.merger.dueAt === null) return;
    }
  }

  check() {
    this.settle();
    // What was left out is followed by something newer: the next state, the next piece of a stream.
    this.server.send("the last word");
    this.server.react(this.server.messages.at(-1), "c");
    for (const message of this.server.present()) if (this.torn.has(message.id)) this.server.append(message, "!");
    this.settle();
    const { server, reader, merger } = this;
    assert.deepEqual([merger.cursor.seq, merger.cursor.rev], [server.seq, server.rev]);
    assert.equal(merger.waiting, 0);
    // The event that says what was removed may be lost. The next `sync` says it again.
    const mine = reader.messages.filter(({ seq }) => seq > server.horizon);
    const first = mine[0]?.seq ?? Infinity;
    const kept = new Set(mine.map(({ seq }) => seq));
    const wanted = server.present().filter(({ seq }) => kept.has(seq));
    const fields = ["id", "seq", "body", "deleted_at", "reactions", "stream", "version", "edited_at"];
    const seen = (messages) => messages.map((message) => Object.fromEntries(fields.map((field) => [field, message[field]])));
    assert.deepEqual(seen(mine), seen(wanted.map(Server.view)), "the copy of the reader is the server's");
    if (this.gaps === "fill") {
      const missing = server.present().filter(({ seq }) => seq >= first && !kept.has(seq));
      assert.deepEqual(missing, [], "nothing is missing between the first and the last message");
    }
  }
}

for (const gaps of ["fill", "skip"]) {
  test(`a reader that ${gaps}s gaps gets every message once, in order, and every change, in any interleaving`, () => {
    const counts = {};
    for (let seed = 1; seed <= RUNS; seed++) {
      const world = new World(seed, gaps);
      try {
        for (let step = 0; step < STEPS; step++) world.step();
        world.check();
      } catch (error) {
        error.message = `seed ${seed}: ${error.message}`;
        throw error;
      }
      for (const [type, count] of Object.entries(world.reader.counts)) counts[type] = (counts[type] ?? 0) + count;
    }
    // The runs are worth something only if everything happens in them.
    const types = ["message", "updated", "deleted", "append", "removed", "reset", ...(gaps === "skip" ? ["gap"] : [])];
    for (const type of types) assert.ok(counts[type] > RUNS / 50, `${type}: ${counts[type]}`);
  });
}

test("a program that goes on from a kept cursor misses nothing and gets nothing twice", () => {
  for (let seed = 1; seed <= RUNS / 4; seed++) {
    const world = new World(seed, "fill");
    const read = world.reader.read.bind(world.reader);
    world.reader.read = (event) => {
      read(event);
      world.cursor = event.cursor;
    };
    for (let step = 0; step < STEPS; step++) {
      world.step();
      if (world.chance(0.02)) world.restart();
    }
    world.check();
  }
});

// What the scripts about @imks/client share: a reader that keeps the promise of `messages()` in mind.
import assert from "node:assert/strict";
import { apply, createClient } from "../../clients/js/dist/index.js";
import { answer } from "./client.js";

const PAUSES = { reconnectionDelay: 50, reconnectionDelayMax: 200 };

export function client(url, token, options = {}) {
  return createClient({ url, token, transports: ["websocket"], ...PAUSES, ...options });
}

// Reads a stream to its end, keeps the messages as the events leave them, and checks that none is missing or comes twice.
export class Reader {
  messages = [];
  events = [];
  #last = null;
  #waiting = new Set();

  constructor(stream, { pause = async () => {} } = {}) {
    this.stream = stream;
    this.over = this.#read(pause);
    this.over.catch(() => {});
  }

  async #read(pause) {
    try {
      for await (const event of this.stream) {
        this.#check(event);
        this.events.push(event);
        this.messages = apply(this.messages, event);
        for (const look of this.#waiting) look();
        await pause();
      }
    } catch (error) {
      this.error = error;
      for (const look of this.#waiting) look();
      throw error;
    }
  }

  #check(event) {
    const isNext = event.type !== "message" || this.#last === null || event.message.seq === this.#last + 1;
    assert.ok(isNext, `${event.message?.seq} comes after ${this.#last}`);
    this.#last = event.cursor.seq;
  }

  // Waits until `wanted` returns something.
  until(wanted, what) {
    let look;
    const found = new Promise((resolve, reject) => {
      look = () => {
        const value = wanted(this);
        if (value) resolve(value);
        else if (this.error) reject(this.error);
      };
      this.#waiting.add(look);
      look();
    });
    const last = JSON.stringify(this.events.slice(-3));
    return answer(found, `${what}; the last events were ${last}`).finally(() => this.#waiting.delete(look));
  }

  message(body) {
    return this.until(() => this.messages.findLast((message) => message.body === body), `a message "${body}"`);
  }

  event(type) {
    return this.until(() => this.events.findLast((event) => event.type === type), `an event ${type}`);
  }

  bodies() {
    return this.messages.map(({ body }) => body);
  }
}

// All messages of a channel, as the server has them, oldest first.
export async function history(client, channel_id) {
  const all = [];
  for (let page, before; !page || page.has_more_before; before = page.messages[0].id) {
    page = await client.request("history", { channel_id, limit: 100, ...(before && { before }) });
    all.unshift(...page.messages);
  }
  return all;
}

// Waits for a state of the connection.
export function state(client, wanted) {
  if (client.state === wanted) return Promise.resolve({ state: wanted });
  let stop;
  const reached = new Promise((resolve) => {
    stop = client.on("state", (change) => change.state === wanted && resolve(change));
  });
  return answer(reached, `the state ${wanted}, not ${client.state}`).finally(stop);
}

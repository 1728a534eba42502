//! The outbox: messages that are sent until they are acknowledged, those of one channel one after the other.

import { asImksError, closed, ImksError } from "./error.js";
import type { Message, MessageSendRequest } from "./imks.js";
import { isWorthAnotherAttempt, pause, type Pauses } from "./retry.js";
import { isEntry, type OutboxEntry, type OutboxStore } from "./store.js";

/** What an outbox needs from its client. */
export interface OutboxParts {
  store: OutboxStore;
  /** Messages that wait, at most. */
  max: number;
  /** Waits for a connection; rejects when the client is closed. */
  ready(): Promise<unknown>;
  /** Sends one message and returns it as it is stored. */
  deliver(request: MessageSendRequest): Promise<Message>;
  /** Is told what became of each message, also of those that an earlier run has left. */
  told(outcome: Outcome): void;
  /** Is told of what an earlier run has left and cannot be read. */
  unreadable(error: ImksError): void;
  /** The time in milliseconds since 1970, which an entry keeps. */
  clock(): number;
  /** Waits for so many milliseconds; rejects when the client is closed. */
  sleep(ms: number): Promise<void>;
}

/** What became of a message in the outbox. */
export type Outcome = { entry: OutboxEntry } & Result;

type Result = { message: Message } | { error: ImksError };

interface Waiting {
  entry: OutboxEntry;
  /** Since when this client knows it. Another client of the store, such as a tab, may have it too. */
  knownAt: number;
  /** Settled when the entry is in the store. */
  stored: Promise<void>;
  resolve(message: Message): void;
  reject(error: ImksError): void;
}

/** The messages of a client that are not acknowledged yet. */
export class Outbox {
  readonly #parts: OutboxParts;
  readonly #channels = new Map<string, Waiting[]>();
  /** Settled when what is left of earlier runs stands in front; null where that has failed. */
  #loaded: Promise<void> | null = null;
  /** Settled when the last message is stored, so that they are stored in the order of the calls. */
  #last: Promise<void>;
  #count = 0;
  #order = 0;
  #isClosed = false;

  constructor(parts: OutboxParts) {
    this.#parts = parts;
    // Failures are told by `unreadable`.
    this.#last = this.#load().catch(() => {});
  }

  /** Rejects whatever waits, and what is sent from now on. What is stored stays there. */
  close(): void {
    this.#isClosed = true;
    for (const { reject } of [...this.#channels.values()].flat()) reject(closed());
  }

  /** The entries that wait, of one channel or of all, in their order. */
  waiting(channelId?: string): OutboxEntry[] {
    const lanes = channelId === undefined ? [...this.#channels.values()] : [this.#channels.get(channelId) ?? []];
    return lanes.flat().map(({ entry }) => entry).sort((a, b) => a.order - b.order);
  }

  /** Puts a message into the outbox, and returns it as it is stored at the server, however long that takes. */
  async send(request: MessageSendRequest): Promise<Message> {
    if (this.#isClosed) throw closed();
    if (this.#count >= this.#parts.max) throw new ImksError("outbox_full", `${this.#parts.max} messages wait already`);
    const nonce = request.nonce ?? newNonce();
    const knownAt = this.#parts.clock();
    this.#order = Math.max(this.#order + 1, knownAt);
    const entry = { nonce, order: this.#order, request: { ...request, nonce }, tried_at: null };
    const stored = this.#last.then(() => this.#load()).then(() => this.#put(entry));
    this.#last = stored.catch(() => {});
    return new Promise((resolve, reject) => this.#add(request.channel_id, { entry, knownAt, stored, resolve, reject }));
  }

  /** Loads what is left of earlier runs: once, or again where that has failed. */
  #load(): Promise<void> {
    this.#loaded ??= this.#read().catch((error: ImksError) => {
      this.#loaded = null;
      this.#parts.unreadable(error);
      throw error;
    });
    return this.#loaded;
  }

  async #read(): Promise<void> {
    const ignore = () => {};
    const left: OutboxEntry[] = [];
    for (const entry of await this.#kept()) {
      if (isEntry(entry)) left.push(entry);
      else this.#parts.unreadable(new ImksError("store_failed", "The store has an entry that cannot be read", { cause: entry }));
    }
    const parts = { knownAt: this.#parts.clock(), stored: Promise.resolve(), resolve: ignore, reject: ignore };
    // From behind, since each goes to the front.
    for (const entry of left.sort((a, b) => b.order - a.order)) {
      this.#order = Math.max(this.#order, entry.order);
      this.#add(entry.request.channel_id, { entry, ...parts }, true);
    }
  }

  async #kept(): Promise<readonly unknown[]> {
    let kept: unknown;
    try {
      kept = await this.#parts.store.load();
    } catch (cause) {
      throw new ImksError("store_failed", "What earlier runs have left cannot be read", { cause });
    }
    if (Array.isArray(kept)) return kept;
    throw new ImksError("store_failed", "load() of the store must return a list", { cause: kept });
  }

  #add(channelId: string, waiting: Waiting, inFront = false): void {
    this.#count++;
    const lane = this.#channels.get(channelId);
    if (lane) return void (inFront ? lane.unshift(waiting) : lane.push(waiting));
    const first = [waiting];
    this.#channels.set(channelId, first);
    void this.#work(channelId, first);
  }

  /** Sends what waits for a channel, until nothing does. */
  async #work(channelId: string, lane: Waiting[]): Promise<void> {
    for (let first = lane[0]; first; first = lane[0]) {
      const { entry, resolve, reject } = first;
      // What is left of earlier runs comes in front meanwhile.
      await first.stored.catch(() => {});
      if (lane[0] !== first) continue;
      const result = await this.#settle(first);
      lane.splice(lane.indexOf(first), 1);
      this.#count--;
      if ("message" in result) resolve(result.message);
      else reject(result.error);
      if (!isClosed(result)) this.#parts.told({ entry, ...result });
    }
    this.#channels.delete(channelId);
  }

  async #settle({ entry, knownAt, stored }: Waiting): Promise<Result> {
    let result: Result;
    try {
      await stored;
      result = { message: await this.#deliver(entry, knownAt) };
    } catch (thrown) {
      result = { error: asImksError(thrown) };
    }
    // Of a client that is closed, it stays for the next one.
    if (isClosed(result)) return result;
    try {
      await this.#parts.store.remove(entry.nonce);
    } catch {
      // It is sent once more by the next run, and stored once.
    }
    return result;
  }

  async #deliver(entry: OutboxEntry, knownAt: number): Promise<Message> {
    for (let attempts = 0, failures = 0; ; attempts++) {
      await this.#parts.ready();
      if (entry.tried_at === null && this.#parts.clock() - knownAt > NONCE_VALID_MS) await this.#look(entry);
      if (entry.tried_at === null) {
        entry.tried_at = this.#parts.clock();
        await this.#put(entry);
      }
      if (this.#parts.clock() - entry.tried_at > NONCE_VALID_MS) throw expired();
      try {
        return await this.#parts.deliver(entry.request);
      } catch (thrown) {
        const error = asImksError(thrown);
        // A connection that ends says nothing about the message.
        if (error.code !== "disconnected" && !isWorthAnotherAttempt(error, ++failures)) throw error;
        await this.#parts.sleep(Math.max(error.retryAfterMs ?? 0, pause(attempts, PAUSES, Math.random())));
      }
    }
  }

  /** Looks what another client of the store has done about an entry that has waited for long. */
  async #look(entry: OutboxEntry): Promise<void> {
    const kept = (await this.#kept()).filter(isEntry).find(({ nonce }) => nonce === entry.nonce);
    if (!kept) throw expired();
    entry.tried_at = kept.tried_at;
  }

  async #put(entry: OutboxEntry): Promise<void> {
    try {
      await this.#parts.store.put(entry);
    } catch (cause) {
      throw storeFailed(cause);
    }
  }
}

/** Returns 128 random bits. (`crypto.randomUUID` exists on pages over HTTPS only.) */
export function newNonce(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function isClosed(result: Result): boolean {
  return "error" in result && result.error.code === "closed";
}

function storeFailed(cause: unknown): ImksError {
  return new ImksError("store_failed", "The outbox cannot be stored", { cause });
}

function expired(): ImksError {
  return new ImksError("nonce_expired", "The message may have been stored a day ago: look, and send it anew");
}

/** How long an attempt may be repeated: an hour less than the server remembers a nonce. */
const NONCE_VALID_MS = 23 * 60 * 60 * 1_000;
/** The pauses after attempts that failed. */
const PAUSES: Pauses = { delayMs: 250, delayMaxMs: 30_000, jitter: 0.5 };

//! Where the outbox is kept: in memory, or in the storage of a browser.

import type { MessageSendRequest } from "./imks.js";

/** A message that is not acknowledged yet. */
export interface OutboxEntry {
  /** By it the server knows a repetition. */
  nonce: string;
  /** The place in the outbox: a greater number was written later. (Milliseconds since 1970, each number once.) */
  order: number;
  /** What `message:send` gets, at every attempt the same. */
  request: MessageSendRequest;
  /** When the first attempt was made, in milliseconds since 1970; null before it. */
  tried_at: number | null;
}

/** Keeps an outbox. Each method may fail; then the message is not sent. */
export interface OutboxStore {
  /** Returns what is left of earlier runs. */
  load(): OutboxEntry[] | Promise<OutboxEntry[]>;
  /** Adds an entry, or replaces the one with its nonce. */
  put(entry: OutboxEntry): void | Promise<void>;
  /** Forgets an entry. */
  remove(nonce: string): void | Promise<void>;
}

/** What of `localStorage` and `sessionStorage` is used. */
export interface WebStorage {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/**
 * Keeps an outbox in `localStorage`, so that it survives a reload of the page. Give each user a `name` of their own.
 *
 * Tabs of the same page share it: after a reload several of them may send what is left, and the nonce makes it one message.
 */
export class WebStorageStore implements OutboxStore {
  readonly #prefix: string;
  readonly #storage: WebStorage;

  constructor(name: string, storage: WebStorage = localStorage) {
    this.#prefix = `imks.outbox.${name}.`;
    this.#storage = storage;
  }

  load(): OutboxEntry[] {
    const keys = Array.from({ length: this.#storage.length }, (_, index) => this.#storage.key(index));
    const mine = keys.filter((key) => key?.startsWith(this.#prefix));
    return mine.map((key) => JSON.parse(this.#storage.getItem(key ?? "") ?? "") as OutboxEntry);
  }

  put(entry: OutboxEntry): void {
    this.#storage.setItem(this.#prefix + entry.nonce, JSON.stringify(entry));
  }

  remove(nonce: string): void {
    this.#storage.removeItem(this.#prefix + nonce);
  }
}

/** Keeps an outbox for the next client of the same process. */
export class MemoryStore implements OutboxStore {
  readonly #entries = new Map<string, OutboxEntry>();

  load(): OutboxEntry[] {
    return [...this.#entries.values()];
  }

  put(entry: OutboxEntry): void {
    this.#entries.set(entry.nonce, entry);
  }

  remove(nonce: string): void {
    this.#entries.delete(nonce);
  }
}

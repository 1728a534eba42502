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

/** Returns whether `value` is an entry, whole and of the right types. */
export function isEntry(value: unknown): value is OutboxEntry {
  if (typeof value !== "object" || value === null) return false;
  const { nonce, order, request, tried_at } = value as Partial<OutboxEntry>;
  const isMessage = typeof request?.channel_id === "string" && request.nonce === nonce;
  const isTried = tried_at === null || Number.isFinite(tried_at);
  return typeof nonce === "string" && nonce !== "" && Number.isFinite(order) && isMessage && isTried;
}

/** Keeps an outbox. Each method may fail; then the message is not sent. */
export interface OutboxStore {
  /** Returns what is left of earlier runs. What is no whole entry is skipped, and told by `unreadable`. */
  load(): readonly unknown[] | Promise<readonly unknown[]>;
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
 * One that sends after a day looks first what the others have done.
 */
export class WebStorageStore implements OutboxStore {
  readonly #prefix: string;
  readonly #storage: WebStorage;

  constructor(name: string, storage: WebStorage = localStorage) {
    // In what is encoded there is no slash, so that no prefix is the beginning of another one.
    this.#prefix = `imks.outbox/${encodeURIComponent(name)}/`;
    this.#storage = storage;
  }

  load(): unknown[] {
    const keys = Array.from({ length: this.#storage.length }, (_, index) => this.#storage.key(index));
    return keys.flatMap((key) => (key?.startsWith(this.#prefix) ? [this.#read(key)] : []));
  }

  put(entry: OutboxEntry): void {
    this.#storage.setItem(this.#prefix + entry.nonce, JSON.stringify(entry));
  }

  remove(nonce: string): void {
    this.#storage.removeItem(this.#prefix + nonce);
  }

  /** Returns an entry, or the text that is none. */
  #read(key: string): unknown {
    const text = this.#storage.getItem(key);
    try {
      const entry: unknown = JSON.parse(text ?? "");
      return isEntry(entry) && entry.nonce === key.slice(this.#prefix.length) ? entry : text;
    } catch {
      return text;
    }
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

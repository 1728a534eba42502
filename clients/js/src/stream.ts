//! A stream: the events of one channel, as somebody reads them.

import { closed, type ImksError } from "./error.js";
import type { SessionReadyEvent } from "./imks.js";
import type { ChannelEvent, Cursor, Merger } from "./merge.js";

/** Where a reader begins, and how it treats a long absence. */
export interface MessagesOptions {
  /**
   * `now` (the default): with what comes next. `start`: with the oldest message that the channel still has. `{last}`:
   * with so many of the newest messages, at most 100. A `Cursor`: after the event that it came with.
   */
  from?: "now" | "start" | { last: number } | Cursor;
  /**
   * What happens to messages that are more than one answer of `sync` holds (200): `fill` (the default) fetches all of
   * them, `skip` tells a `gap` and goes on with the newest.
   */
  gaps?: "fill" | "skip";
  /** Live events that wait for the reader, at most; 512 if absent. Further ones are dropped, and fetched when there is room. */
  buffer?: number;
}

/** The events of a channel, in order: `for await (const event of client.channel(id).messages())`. */
export interface MessageStream extends AsyncIterableIterator<ChannelEvent, undefined> {
  readonly channelId: string;
  /** The number of events that wait for the reader, or for their predecessors. */
  readonly waiting: number;
  /** Waits until the server has said where the stream begins, and returns that place. Rejects like `next`. */
  ready(): Promise<Cursor>;
  /**
   * Waits for the next event.
   *
   * Rejects with an `ImksError` when the channel can no longer be read, because the user has left it or may not see it, and
   * when the server keeps the client out. The stream is over then. It is over without an error after `close` of the client.
   */
  next(): Promise<IteratorResult<ChannelEvent, undefined>>;
  /** Ends the stream; what waits is dropped. `break` in `for await` does it too. */
  return(): Promise<IteratorResult<ChannelEvent, undefined>>;
}

/** A stream, with what its readers know of it. */
export class Reading implements MessageStream {
  readonly channelId: string;
  readonly options: Required<MessagesOptions>;
  /** Null until the server has said where the channel is. */
  merger: Merger | null = null;
  /** The connection on which its room was entered. (The `session_id` is that of the token.) */
  joined: SessionReadyEvent | null = null;
  /** Whether it is asked for alone, because a request for several streams was refused: until one for it has succeeded. */
  isAlone = false;
  /** Requests in a row that failed. */
  failures = 0;
  /** No request for it before this time, because the last one failed. */
  notBefore = 0;
  readonly #leave: (reading: Reading) => void;
  readonly #taken: () => void;
  #error: ImksError | null = null;
  #isOver = false;
  /** Whether a reader has got the error: the next one gets the end. */
  #isTold = false;
  #wake: (() => void)[] = [];

  constructor(channelId: string, options: MessagesOptions, leave: (reading: Reading) => void, taken: () => void) {
    const { from = "now", gaps = "fill", buffer = 512 } = options;
    this.channelId = channelId;
    this.options = { from, gaps, buffer };
    this.#leave = leave;
    this.#taken = taken;
  }

  get waiting(): number {
    return this.merger?.waiting ?? 0;
  }

  /** Takes the merger with which it begins, unless it has ended while that was made. */
  begin(merger: Merger): void {
    if (!this.#isOver) this.merger = merger;
  }

  /** Forgets what has failed. */
  succeeded(): void {
    this.isAlone = false;
    this.failures = this.notBefore = 0;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async ready(): Promise<Cursor> {
    for (;;) {
      if (this.merger) return this.merger.begin;
      if (this.#isOver) throw this.#error ?? closed();
      await this.#change();
    }
  }

  async next(): Promise<IteratorResult<ChannelEvent, undefined>> {
    for (;;) {
      const event = this.merger?.take();
      if (event) {
        this.#taken();
        return { done: false, value: event };
      }
      if (this.#isOver) return this.#last();
      await this.#change();
    }
  }

  async return(): Promise<IteratorResult<ChannelEvent, undefined>> {
    this.end(null);
    this.merger = null;
    return { done: true, value: undefined };
  }

  /** Ends the stream after what waits. */
  end(error: ImksError | null): void {
    if (!this.#isOver) this.#error = error;
    this.#isOver = true;
    this.#leave(this);
    this.wake();
  }

  /** Says that something may have changed. */
  wake(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const resolve of waiting) resolve();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  #last(): IteratorResult<ChannelEvent, undefined> {
    const error = this.#isTold ? null : this.#error;
    this.#isTold = true;
    if (error) throw error;
    return { done: true, value: undefined };
  }
}

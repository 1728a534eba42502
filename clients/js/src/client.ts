//! The client: one connection, its channels, and its outbox.

import { Connection, type ConnectionOptions, type ImksSocket, type State, type StateChange } from "./connection.js";
import { Emitter } from "./emitter.js";
import { closed, type ImksError } from "./error.js";
import type { ClientToServerEvents, Message, MessageSendRequest, ServerToClientEvents, SessionReadyEvent } from "./imks.js";
import { Outbox, type Outcome } from "./outbox.js";
import { Readers } from "./readers.js";
import { request, requestNow, type RequestData, type RequestOptions, type RequestPayload } from "./requests.js";
import { MemoryStore, type OutboxEntry, type OutboxStore } from "./store.js";
import type { MessagesOptions, MessageStream } from "./stream.js";

/** The settings of a client. What it does not name goes to the stock client of Socket.IO. */
export interface ClientOptions extends ConnectionOptions {
  outbox?: {
    /** Where messages wait that are not acknowledged; in memory if absent. */
    store?: OutboxStore;
    /** How many of them, at most; 1,000 if absent. One more is refused with `outbox_full`. */
    max?: number;
  };
}

/** The events of a client: those of the server, and its own. */
export type ClientEvents = ServerToClientEvents & {
  /** The connection has changed. */
  state: (change: StateChange) => void;
  /** A message of the outbox is stored at the server. */
  sent: (message: Message, entry: OutboxEntry) => void;
  /** A message of the outbox was refused for good. */
  failed: (error: ImksError, entry: OutboxEntry) => void;
  /** The store of the outbox cannot be read, or an entry of it, which is skipped: `cause` has what was found instead. */
  unreadable: (error: ImksError) => void;
};

/** What to send: `message:send` without the channel. A `nonce` is made where there is none. */
export type Draft = Omit<MessageSendRequest, "channel_id">;

/** Creates a client, and lets it connect unless `autoConnect` is false. */
export function createClient(options: ClientOptions): Client {
  const client = new Client(options);
  // A refusal is told by `state`, and by everything that waits for the connection.
  if (options.autoConnect !== false) client.connect().catch(() => {});
  return client;
}

/** A user's connection to imks. Made by `createClient`. */
export class Client {
  readonly #connection: Connection;
  readonly #readers: Readers;
  readonly #outbox: Outbox;
  readonly #own = new OwnEvents();

  constructor({ outbox, ...options }: ClientOptions) {
    this.#connection = new Connection(options);
    this.#readers = new Readers(this.#connection);
    this.#outbox = new Outbox({
      store: outbox?.store ?? new MemoryStore(),
      max: outbox?.max ?? 1_000,
      ready: () => this.#connection.ready({ orRefused: false }),
      deliver: async (message) => (await requestNow(this.#connection, "message:send", message)).message,
      told: (outcome) => this.#own.told(outcome),
      unreadable: (error) => this.#own.unreadable(error),
      clock: () => Date.now(),
      sleep: (ms) => this.#sleep(ms),
    });
    this.#connection.on("state", ({ state }) => state === "closed" && this.#outbox.close());
  }

  get state(): State {
    return this.#connection.state;
  }

  /** What `session:ready` said; null without a connection. */
  get session(): SessionReadyEvent | null {
    return this.#connection.session;
  }

  /** The stock socket, for everything that this client does not know. */
  get socket(): ImksSocket {
    return this.#connection.socket;
  }

  /**
   * Connects, unless it does so already, and returns the session.
   *
   * Rejects with an `ImksError` when the server keeps this client out for good; what passes by itself is waited for.
   */
  connect(): Promise<SessionReadyEvent> {
    return this.#connection.connect();
  }

  /** Ends everything, for good: streams end, what waits in the outbox stays in its store. */
  close(): void {
    this.#connection.close();
  }

  /** Calls `handler` for each such event. Returns the function that ends it. */
  on<E extends keyof ClientEvents>(event: E, handler: ClientEvents[E]): () => void {
    if (event === "state") return this.#connection.on("state", handler as ClientEvents["state"]);
    if (event === "sent" || event === "failed" || event === "unreadable") return this.#own.on(event, handler as never);
    this.socket.on(event as keyof ServerToClientEvents, handler as never);
    return () => void this.socket.off(event as keyof ServerToClientEvents, handler as never);
  }

  /**
   * Sends a request and returns the data of its answer.
   *
   * Rejects with an `ImksError`: that of the answer, `timeout`, `disconnected`, `payload_too_large`, or why there is no
   * connection.
   */
  request<E extends keyof ClientToServerEvents>(
    event: E,
    payload: RequestPayload<E>,
    options?: RequestOptions,
  ): Promise<RequestData<E>> {
    return request(this.#connection, event, payload, options);
  }

  /** A channel, whether it exists or not: the server says so when it is used. */
  channel(id: string): Channel {
    return new Channel(id, this.#readers, this.#outbox);
  }

  /** The messages in the outbox, in their order. */
  waiting(): OutboxEntry[] {
    return this.#outbox.waiting();
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.state === "closed") return reject(closed());
      const stop = this.on("state", ({ state }) => {
        if (state !== "closed") return;
        clearTimeout(timer);
        reject(closed());
      });
      const timer = setTimeout(() => {
        stop();
        resolve();
      }, ms);
    });
  }
}

/** One channel of a client. Made by `client.channel`. */
export class Channel {
  readonly id: string;
  readonly #readers: Readers;
  readonly #outbox: Outbox;

  constructor(id: string, readers: Readers, outbox: Outbox) {
    this.id = id;
    this.#readers = readers;
    this.#outbox = outbox;
  }

  /**
   * The messages of the channel and their changes, from `from` on, in order, none missing and none twice: over reconnects,
   * restarts of the server, and a slow reader. Each call is a stream of its own.
   */
  messages(options: MessagesOptions = {}): MessageStream {
    return this.#readers.open(this.id, options);
  }

  /**
   * Puts a message into the outbox, and returns it as it is stored at the server, however long that takes. Messages of one
   * channel are stored in the order of these calls.
   *
   * Rejects with an `ImksError` when the server refuses it for good, when the outbox is full or cannot be stored, and when
   * the client is closed before.
   */
  send(draft: Draft): Promise<Message> {
    return this.#outbox.send({ ...draft, channel_id: this.id });
  }

  /** The messages in the outbox that are for this channel, in their order. */
  waiting(): OutboxEntry[] {
    return this.#outbox.waiting(this.id);
  }
}

class OwnEvents extends Emitter<Pick<ClientEvents, "sent" | "failed" | "unreadable">> {
  told(outcome: Outcome): void {
    if ("message" in outcome) this.emit("sent", outcome.message, outcome.entry);
    else this.emit("failed", outcome.error, outcome.entry);
  }

  unreadable(error: ImksError): void {
    this.emit("unreadable", error);
  }
}

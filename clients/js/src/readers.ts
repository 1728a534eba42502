//! The readers of channels: hands live events to their mergers, and asks the server for what these are missing.

import type { Connection } from "./connection.js";
import { asImksError, closed, ImksError } from "./error.js";
import type { ClientToServerEvents, SessionReadyEvent, SubscribedChannel } from "./imks.js";
import { LIVE, Merger, type LiveEvent } from "./merge.js";
import { request, type RequestData, type RequestPayload } from "./requests.js";
import { isWorthAnotherAttempt, pause } from "./retry.js";
import { Reading, type MessagesOptions, type MessageStream } from "./stream.js";

/** A kind of request: for which streams, for how many at once. */
interface Kind {
  pick(stream: Reading): boolean;
  max: number;
  run(streams: Reading[]): Promise<void>;
}

/** All readers of a client. One request at a time asks for what they miss. */
export class Readers {
  readonly #connection: Connection;
  readonly #streams = new Set<Reading>();
  #isAsking = false;
  /** Which kind of request comes first. */
  #turn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** What the pauses of this client differ by from those of others. Its streams come back together, in one request. */
  readonly #random = Math.random();

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#listen();
  }

  /** Opens a stream, without waiting for anything. */
  open(channelId: string, options: MessagesOptions): MessageStream {
    const stream = new Reading(channelId, options, (left) => this.#streams.delete(left), this.#pump);
    this.#streams.add(stream);
    const { state, refusal } = this.#connection;
    if (state === "closed") stream.end(closed());
    if (state === "refused") stream.end(refusal);
    this.#pump();
    return stream;
  }

  #listen(): void {
    const { socket } = this.#connection;
    for (const name of LIVE) {
      socket.on(name, ((payload: LiveEvent["payload"]) => this.#live({ name, payload } as LiveEvent)) as never);
    }
    socket.on("sync:required", ({ channel_ids }) => {
      for (const id of channel_ids) this.#each(id, (stream) => stream.merger?.resync());
    });
    socket.on("channel:activity", ({ channels }) => {
      for (const head of channels) this.#each(head.channel_id, (stream) => stream.merger?.heads(head));
    });
    socket.on("channel:left", ({ channel_id, reason, message }) => {
      const code = reason === "kicked" ? "kicked" : "forbidden";
      this.#each(channel_id, (stream) => stream.end(new ImksError(code, message ?? `left the channel: ${reason}`)));
    });
    this.#connection.on("state", ({ state, error }) => {
      if (state === "connected") {
        for (const stream of this.#streams) stream.failures = stream.notBefore = 0;
        this.#pump();
      }
      const last = state === "refused" ? error : state === "closed" ? null : undefined;
      if (last === undefined) return;
      clearTimeout(this.#timer);
      for (const stream of this.#streams) stream.end(last);
    });
  }

  #live(event: LiveEvent): void {
    this.#each(event.payload.channel_id, (stream) => stream.merger?.live(event, now()));
  }

  #each(channelId: string, act: (stream: Reading) => void): void {
    for (const stream of this.#streams) {
      if (stream.channelId !== channelId) continue;
      act(stream);
      stream.wake();
    }
    this.#pump();
  }

  /** Asks for everything that is due, one request after the other, and plans when to look again. */
  readonly #pump = (): void => {
    if (this.#isAsking || !this.#connection.session) return;
    const wait = this.#dueAt() - now();
    clearTimeout(this.#timer);
    if (wait === Infinity) return;
    if (wait > 0) {
      this.#timer = setTimeout(this.#pump, wait);
      return;
    }
    this.#isAsking = true;
    void this.#ask().finally(() => {
      this.#isAsking = false;
      this.#pump();
    });
  };

  #dueAt(): number {
    const { session } = this.#connection;
    let due = Infinity;
    for (const { joined, merger, notBefore } of this.#streams) {
      due = Math.min(due, Math.max(notBefore, joined === session ? (merger?.dueAt ?? Infinity) : 0));
    }
    return due;
  }

  async #ask(): Promise<void> {
    const job = this.#job();
    if (!job) return;
    try {
      await job.run();
    } catch (thrown) {
      this.#failed(asImksError(thrown), job.streams);
    }
    for (const stream of job.streams) stream.wake();
  }

  /** Says what to do about a request that failed at `time`: those of one time are tried again together. */
  #failed(error: ImksError, streams: Reading[], time = now()): void {
    for (const stream of streams) {
      const isOver = !isWorthAnotherAttempt(error, ++stream.failures);
      if (isOver && streams.length === 1) return stream.end(error);
      stream.merger?.resync();
      if (isOver) {
        // Of several, one is wrong: each is asked for alone.
        stream.isAlone = true;
        stream.failures = 0;
        continue;
      }
      stream.notBefore = time + Math.max(error.retryAfterMs ?? 0, pause(stream.failures - 1, PAUSES, this.#random));
    }
  }

  /** Returns the next request, and for whom it is. The kinds take turns, so that none holds up another. */
  #job(): { streams: Reading[]; run: () => Promise<void> } | null {
    const { session } = this.#connection;
    if (!session) return null;
    const wants = ({ joined, merger }: Reading) => (joined === session ? (merger?.wants(now()) ?? null) : "join");
    const kinds: Kind[] = [
      { pick: (stream) => wants(stream) === "join", max: BATCH_MAX, run: (streams) => this.#join(streams, session) },
      { pick: (stream) => wants(stream) === "sync", max: BATCH_MAX, run: (streams) => this.#sync(streams) },
      { pick: (stream) => ["history", "messages"].includes(wants(stream) ?? ""), max: 1, run: (streams) => this.#fetch(streams) },
    ];
    this.#turn++;
    for (const place of kinds.keys()) {
      const kind = kinds[(this.#turn + place) % kinds.length];
      const streams = kind ? this.#batch(kind) : [];
      if (kind && streams.length > 0) return { streams, run: () => kind.run(streams) };
    }
    return null;
  }

  /** Returns the first streams that `pick` takes, each of another channel, and puts them behind all others. */
  #batch({ pick, max }: Kind): Reading[] {
    const batch = new Map<string, Reading>();
    for (const stream of this.#streams) {
      if (batch.size >= max || batch.has(stream.channelId) || stream.notBefore > now() || !pick(stream)) continue;
      if (stream.isAlone && batch.size > 0) continue;
      batch.set(stream.channelId, stream);
      if (stream.isAlone) break;
    }
    const streams = [...batch.values()];
    for (const stream of streams) {
      this.#streams.delete(stream);
      this.#streams.add(stream);
    }
    return streams;
  }

  async #sync(streams: Reading[]): Promise<void> {
    const channels = streams.flatMap(({ channelId, merger }) => {
      const ask = merger?.next(now());
      return ask?.ask === "sync" ? [{ channel_id: channelId, seq: ask.seq, rev: ask.rev }] : [];
    });
    const answer = await this.#request("sync", { channels });
    for (const stream of streams) {
      const mine = answer.channels.find((channel) => channel.channel_id === stream.channelId);
      if (mine) stream.merger?.synced(mine, now());
      else if (answer.removed_channels.includes(stream.channelId)) stream.end(notReadable());
      else stream.merger?.resync();
      stream.succeeded();
    }
  }

  async #fetch(streams: Reading[]): Promise<void> {
    for (const stream of streams) {
      const { channelId: channel_id, merger } = stream;
      const ask = merger?.next(now());
      if (ask?.ask === "history") {
        merger?.page(await this.#request("history", { channel_id, after: ask.after, limit: PAGE }), now());
      } else if (ask?.ask === "messages") {
        merger?.got((await this.#request("message:get", { channel_id, message_ids: ask.ids })).messages);
      }
      stream.succeeded();
    }
  }

  /** Enters the rooms of the channels, and finds out where new streams begin. */
  async #join(streams: Reading[], session: SessionReadyEvent): Promise<void> {
    const channel_ids = streams.map((stream) => stream.channelId);
    const { channels } = await this.#request("channel:subscribe", { channel_ids });
    const failures: [ImksError, Reading][] = [];
    for (const [place, channel] of channels.entries()) {
      const stream = streams[place];
      if (!stream) continue;
      try {
        if (channel.error) throw ImksError.from(channel.error);
        if (!stream.merger) stream.begin(await this.#begin(stream, channel, session.user.id));
      } catch (thrown) {
        failures.push([asImksError(thrown), stream]);
        continue;
      }
      // Whatever came before the room was entered, and while its numbers were on their way.
      stream.merger?.resync();
      stream.joined = session;
      stream.succeeded();
    }
    const time = now();
    for (const [error, stream] of failures) this.#failed(error, [stream], time);
  }

  async #begin({ channelId, options: wanted }: Reading, head: SubscribedChannel, userId: string): Promise<Merger> {
    const { from } = wanted;
    const options = { ...wanted, userId };
    const { last_seq: seq = 0, rev = 0, last_message_id: id = null, horizon_seq: horizon = 0 } = head;
    if (from === "now") return new Merger({ seq, rev, id }, horizon, options);
    if (from === "start") return new Merger({ seq: horizon, rev, id: null }, horizon, options);
    if (!("last" in from)) return new Merger(from, 0, options);
    const limit = Math.min(from.last, PAGE);
    const page = await this.#request("history", { channel_id: channelId, limit });
    const [first] = page.messages;
    const merger = new Merger(first ? { seq: first.seq - 1, rev, id: null } : { seq, rev, id }, horizon, options);
    merger.page(page, now());
    return merger;
  }

  /** Large answers take their time on a slow line; a connection that is dead ends by itself. */
  #request<E extends keyof ClientToServerEvents>(event: E, payload: RequestPayload<E>): Promise<RequestData<E>> {
    return request(this.#connection, event, payload, { timeoutMs: ANSWER_TIMEOUT_MS });
  }
}

function notReadable(): ImksError {
  return new ImksError("forbidden", "The channel cannot be read any more");
}

/** Milliseconds that no change of the clock moves. */
function now(): number {
  return performance.now();
}

/** How long an answer may take, in milliseconds. */
const ANSWER_TIMEOUT_MS = 60_000;
/** Channels in one request, at most. */
const BATCH_MAX = 100;
/** Messages in one page of `history`, at most. */
const PAGE = 100;
/** The pauses of a stream after requests for it that failed. */
const PAUSES = { delayMs: 250, delayMaxMs: 10_000, jitter: 0.5 };

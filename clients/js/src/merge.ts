//! The order of one channel: merges live events, `sync` and `history` into one sequence without holes and doubles. No I/O,
//! no clock.

import type {
  ChannelHorizonEvent,
  ChannelSync,
  HistoryAnswer,
  Message,
  ReactionUpdatedEvent,
  ServerToClientEvents,
  ThreadUpdatedEvent,
} from "./imks.js";

/** A place in a channel: everything up to it is known. A program that keeps it can go on from there after its restart. */
export interface Cursor {
  /** The number of the newest message. */
  seq: number;
  /** The number of the newest change. */
  rev: number;
  /** The id of the newest message; null before the first one. */
  id: string | null;
}

/**
 * What changed a message. Of `edit`, `embeds`, `author` and `sync` the whole message is known, and of `stream` at the end of the
 * stream; before it, `stream` has the text so far.
 */
export type UpdateKind = "edit" | "stream" | "embeds" | "author" | "sync" | "reaction" | "pin" | "poll" | "ack" | "thread";

/**
 * What happened in a channel:
 *
 * - `message`: the next message. Its `seq` is one more than that of the last one, unless `gap`, `removed` or `reset` came
 *   between. A message that was deleted meanwhile has `deleted_at` and no body.
 * - `updated`: `changes` replace these fields of the message `id`. Where `own` stands beside them, they are without what is the
 *   reader's own (`me` of reactions, `my_votes` of a poll), which stays as it was, except for the reactions in `own`: those that
 *   the reader has added (true) or taken back (false).
 * - `deleted`: a tombstone remains of it: `message`, where it is known, such as after an absence.
 * - `append`: the next piece of a streamed message, to be added to the end of its body.
 * - `gap`: the messages with numbers between `after` and `before` are left out, as `gaps: "skip"` asks for; `history` has
 *   them.
 * - `removed`: messages up to `until_seq` are gone for good, because the channel keeps them only so long.
 * - `reset`: changes of messages that were delivered before cannot be told one by one. Forget these messages; those in
 *   `messages`, the newest of them, are as they are now. `message` goes on after them.
 */
export type ChannelEvent = (
  | { type: "message"; message: Message }
  | { type: "updated"; id: string; rev: number; kind: UpdateKind; changes: Partial<Message>; own?: Record<string, boolean> }
  | { type: "deleted"; id: string; seq: number; rev: number; deleted_at: string; message?: Message }
  | { type: "append"; id: string; offset: number; text: string }
  | { type: "gap"; after: number; before: number }
  | { type: "removed"; until_seq: number; until_id: string | null }
  | { type: "reset"; messages: Message[] }
) & {
  /** The place after this event: pass it as `from` to go on with the next one. */
  cursor: Cursor;
};

/** The names of the live events that a merger takes. */
export const LIVE = [
  "message:new",
  "message:updated",
  "message:deleted",
  "message:append",
  "reaction:updated",
  "pin:updated",
  "poll:updated",
  "ack:updated",
  "thread:updated",
  "channel:horizon",
] as const;

/** A live event of a channel. */
export type LiveEvent = {
  [E in (typeof LIVE)[number]]: { name: E; payload: Parameters<ServerToClientEvents[E]>[0] };
}[(typeof LIVE)[number]];

/** What a merger needs from the server. */
export type Ask =
  | { ask: "sync"; seq: number; rev: number }
  | { ask: "history"; after: string }
  | { ask: "messages"; ids: string[] };

/** The settings of a merger. */
export interface MergerOptions {
  /** Live events that wait for the reader, at most. Further ones are dropped and asked for again when there is room. */
  buffer: number;
  /** Whether messages that do not fit into one answer are all fetched, or left out with a `gap`. */
  gaps: "fill" | "skip";
  /** The id of the reader, who is told what of a change is their own. */
  userId: string;
}

/** A numbered event that does not fit yet, or that does. */
type Numbered =
  | { lane: "seq"; seq: number; message: Message }
  | { lane: "rev"; rev: number; id: string; body: Change };
type Change =
  | { type: "updated"; kind: UpdateKind; changes: Partial<Message>; own?: Record<string, boolean> }
  | { type: "deleted"; seq: number; deleted_at: string; message?: Message };
type Body = ChannelEvent extends infer E ? (E extends ChannelEvent ? Omit<E, "cursor"> : never) : never;

/**
 * Merges one channel. Facts come in by `live`, `heads`, `synced`, `page` and `got`, in any order and number; what is known
 * comes out of `take`, in order. `next` says what the server should be asked.
 */
export class Merger {
  /** The place where it began. */
  readonly begin: Cursor;
  readonly #options: MergerOptions;
  readonly #queue: ChannelEvent[] = [];
  /** The place after the last event of the queue. */
  #cursor: Cursor;
  #horizon: number;
  /** The greatest numbers that were heard of, also in events that were dropped. */
  #head: { seq: number; rev: number };
  /** Events whose predecessors are missing. */
  #pending: Numbered[] = [];
  /** Where `history` continues, and up to which number, while messages are fetched that do not fit into a `sync`. */
  #filling: { after: string; until: number } | null = null;
  /** Whether to `sync` without waiting for the hole to close. */
  #stale = false;
  #holeSince: number | null = null;
  /** How many characters are known of each message that is being streamed. */
  readonly #streams = new Map<string, number>();
  /** How many characters there are of a message that is being streamed, where pieces came that did not fit. */
  readonly #heard = new Map<string, number>();

  constructor(cursor: Cursor, horizon: number, options: MergerOptions) {
    this.#options = options;
    this.begin = { ...cursor };
    this.#cursor = { ...cursor };
    this.#horizon = horizon;
    this.#head = { seq: cursor.seq, rev: cursor.rev };
  }

  /** The place after everything that was taken or waits to be taken. */
  get cursor(): Cursor {
    return { ...this.#cursor };
  }

  /** The number of events that wait: those for the reader, and those whose predecessors are missing. */
  get waiting(): number {
    return this.#queue.length + this.#pending.length;
  }

  /** Returns the next event for the reader. */
  take(): ChannelEvent | undefined {
    return this.#queue.shift();
  }

  /** Takes a live event, in the order of the connection. */
  live(event: LiveEvent, now: number): void {
    if (event.name === "channel:horizon") {
      this.#raise(event.payload);
      return this.#drain();
    }
    if (event.name === "message:append") return this.#append(event.payload);
    const numbered = numberedOf(event, this.#options.userId);
    this.#hear(numbered.lane === "seq" ? { seq: numbered.seq, rev: 0 } : { seq: 0, rev: numbered.rev });
    if (this.#queue.length >= this.#options.buffer) {
      this.#stale = true;
      return;
    }
    // When this is full, what comes first fits first: the newest can be asked for again.
    if (this.#pending.length < PENDING_MAX) this.#pending.push(numbered);
    else this.#stale = true;
    this.#drain();
    this.#watch(now);
  }

  /** Takes the numbers of a channel whose events do not come, or did not. */
  heads(numbers: { last_seq: number; rev: number }): void {
    this.#hear({ seq: numbers.last_seq, rev: numbers.rev });
    if (this.#isBehind()) this.#stale = true;
  }

  /** Says that events may have been missed: after each connect, for `sync:required`, and when a request has failed. */
  resync(): void {
    this.#stale = true;
  }

  /** Returns what `next` would ask; null if nothing, or if the reader has enough to do. */
  wants(now: number): Ask["ask"] | null {
    if (!this.#hasRoom()) return null;
    if (this.#filling) return "history";
    if (this.#stale || (this.#holeSince !== null && now >= this.#holeSince + HOLE_MS)) return "sync";
    return this.#torn().length > 0 ? "messages" : null;
  }

  /** Returns what to ask now, and takes it as asked. A request that fails is to be told by `resync`. */
  next(now: number): Ask | null {
    const ask = this.wants(now);
    if (ask === "history" && this.#filling) return { ask, after: this.#filling.after };
    if (ask === "sync") {
      this.#stale = false;
      this.#holeSince = null;
      // The answer has everything that was heard of until now, or says that it was of another history.
      this.#head = { seq: this.#cursor.seq, rev: this.#cursor.rev };
      return { ask, seq: this.#cursor.seq, rev: this.#cursor.rev };
    }
    if (ask !== "messages") return null;
    const ids = this.#torn();
    // An answer that has less is not asked for again, until the next piece comes.
    for (const id of ids) this.#heard.delete(id);
    return { ask, ids };
  }

  /** Returns when `next` has something to ask, if nothing happens until then: a time that may be past, or null for never. */
  get dueAt(): number | null {
    if (!this.#hasRoom()) return null;
    if (this.#filling || this.#stale || this.#torn().length > 0) return 0;
    return this.#holeSince === null ? null : this.#holeSince + HOLE_MS;
  }

  /** Takes the answer to `sync`. */
  synced(answer: ChannelSync, now: number): void {
    const isNewest = answer.rev >= this.#cursor.rev;
    const until = this.#cursor.seq;
    this.#hear({ seq: answer.seq, rev: answer.rev });
    if (answer.reset) this.#reset(answer);
    else this.#raise(answer);
    const known = this.#cursor.rev;
    for (const [place, { rev, message }] of answer.changes.entries()) {
      // Those after the cursor come as messages, as they are now.
      if (message.seq > until) continue;
      // A message that is being streamed may have the number of another change, which is passed with the last of them.
      const passed = answer.changes[place + 1]?.rev === rev ? rev - 1 : rev;
      if (rev > known) this.#deliverChange(rev, message.id, changeOf(message), passed);
      else if (isNewest) this.#refresh(message);
    }
    this.#cursor.rev = Math.max(this.#cursor.rev, answer.rev);
    this.#advance(answer);
    this.#drain();
    this.#watch(now);
  }

  /** Takes a page of `history` after the place that was asked for, or the newest page, with which a reader begins. */
  page(page: HistoryAnswer, now: number): void {
    this.#deliver(page.messages);
    const last = page.messages.at(-1);
    if (this.#filling && last && page.has_more_after) {
      this.#filling.after = last.id;
    } else if (this.#filling) {
      this.#raiseTo(this.#filling.until);
      this.#filling = null;
      this.#drain();
      // Events came meanwhile for which there was no room.
      if (this.#isBehind()) this.#stale = true;
    }
    this.#drain();
    this.#watch(now);
  }

  /** Takes the answer to `message:get`, which may be older than what came meanwhile: an end, most of all. */
  got(messages: Message[]): void {
    for (const message of messages) if (this.#streams.has(message.id)) this.#refresh(message);
  }

  #hear({ seq, rev }: { seq: number; rev: number }): void {
    this.#head = { seq: Math.max(this.#head.seq, seq), rev: Math.max(this.#head.rev, rev) };
  }

  #hasRoom(): boolean {
    return this.#queue.length <= this.#options.buffer / 2;
  }

  #isBehind(): boolean {
    return this.#head.seq > this.#cursor.seq || this.#head.rev > this.#cursor.rev;
  }

  /** Starts or ends the wait for what is missing. */
  #watch(now: number): void {
    if (!this.#isBehind() || this.#filling) this.#holeSince = null;
    else this.#holeSince ??= now;
  }

  /** Delivers what fits of the pending events, and forgets what is known. */
  #drain(): void {
    for (let progress = true; progress; ) {
      progress = false;
      this.#pending = this.#pending.filter((event) => {
        if (this.#isKnown(event)) return false;
        if (!this.#fits(event)) return true;
        progress = true;
        if (event.lane === "seq") this.#deliver([event.message]);
        else this.#deliverChange(event.rev, event.id, event.body);
        return false;
      });
    }
  }

  /** Messages that are being fetched count as known: as they were sent, they are without the changes up to the cursor. */
  #isKnown(event: Numbered): boolean {
    if (event.lane === "rev") return event.rev <= this.#cursor.rev;
    return event.seq <= Math.max(this.#cursor.seq, this.#filling?.until ?? 0);
  }

  #fits(event: Numbered): boolean {
    if (event.lane === "seq") return event.seq === this.#cursor.seq + 1;
    return event.rev === this.#cursor.rev + 1 && this.#isDelivered(event.id);
  }

  /** In one channel, ids are in the order of `seq`. */
  #isDelivered(id: string): boolean {
    return this.#cursor.id !== null && id <= this.#cursor.id;
  }

  #deliver(messages: Message[]): void {
    for (const message of messages) {
      if (message.seq <= this.#cursor.seq) continue;
      // An answer leaves out only what is gone.
      this.#raiseTo(message.seq - 1);
      this.#cursor.seq = message.seq;
      this.#cursor.id = message.id;
      this.#push({ type: "message", message });
      this.#follow(message);
    }
  }

  #deliverChange(rev: number, id: string, body: Change, passed = rev): void {
    this.#cursor.rev = passed;
    if (body.type === "deleted") {
      this.#follow({ id, stream: null });
      this.#push({ ...body, id, rev });
      return;
    }
    if (body.changes.stream !== undefined) this.#follow({ id, stream: body.changes.stream });
    this.#push({ ...body, id, rev });
  }

  /** Delivers the messages of an answer, if none is missing before them. */
  #advance({ messages, seq, truncated, reset }: ChannelSync): void {
    const first = messages.find((message) => message.seq > this.#cursor.seq);
    const isWhole = !(truncated || reset) || seq <= this.#cursor.seq || first?.seq === this.#cursor.seq + 1;
    if (!isWhole && this.#options.gaps === "fill") {
      this.#filling ??= { after: this.#cursor.id ?? FIRST, until: seq };
      return;
    }
    if (!isWhole) {
      const [after, before] = [this.#cursor.seq, first?.seq ?? seq + 1];
      this.#cursor.seq = before - 1;
      this.#push({ type: "gap", after, before });
    }
    this.#deliver(messages);
    this.#raiseTo(seq);
  }

  /** Starts over with the numbers of an answer, which may be those of another history. */
  #reset({ messages, seq, rev, horizon_seq }: ChannelSync): void {
    const known = messages.filter((message) => message.seq <= this.#cursor.seq);
    if (seq < this.#cursor.seq) this.#cursor = { seq, rev, id: messages.at(-1)?.id ?? null };
    this.#cursor.rev = rev;
    this.#head = { seq, rev };
    this.#horizon = horizon_seq;
    this.#cursor.seq = Math.max(this.#cursor.seq, horizon_seq);
    this.#pending = [];
    this.#filling = null;
    this.#streams.clear();
    this.#heard.clear();
    this.#push({ type: "reset", messages: known });
    for (const message of known) this.#follow(message);
  }

  /** Takes it that no message up to `seq` is left beyond those that were delivered. */
  #raiseTo(seq: number): void {
    if (seq > this.#cursor.seq) this.#raise({ horizon_seq: seq, horizon_id: null });
  }

  #raise({ horizon_seq, horizon_id }: Pick<ChannelSync, "horizon_seq" | "horizon_id"> | ChannelHorizonEvent): void {
    if (horizon_seq <= this.#horizon) return;
    this.#horizon = horizon_seq;
    if (this.#cursor.seq < horizon_seq) this.#cursor = { ...this.#cursor, seq: horizon_seq, id: horizon_id ?? this.#cursor.id };
    // It may come when the queue is full: it is one event, and rare.
    this.#push({ type: "removed", until_seq: horizon_seq, until_id: horizon_id });
  }

  /** Notes how much is known of a message that is being streamed, or that it is not any more. */
  #follow({ id, stream }: Pick<Message, "id" | "stream">): void {
    this.#streams.delete(id);
    if (stream?.state === "active") note(this.#streams, id, stream.offset);
    if (stream?.state !== "active" || stream.offset >= (this.#heard.get(id) ?? 0)) this.#heard.delete(id);
  }

  #append({ id, offset, text }: { id: string; offset: number; text: string }): void {
    const [known, end] = [this.#streams.get(id), offset + characters(text)];
    if (offset === known && this.#queue.length < this.#options.buffer) {
      this.#push({ type: "append", id, offset, text });
      this.#follow({ id, stream: { state: "active", offset: end } });
    } else if (known === undefined ? !this.#isDelivered(id) : end > known) {
      // Also of a message that itself has to wait.
      note(this.#heard, id, Math.max(end, this.#heard.get(id) ?? 0));
    }
  }

  /** Returns the messages of which pieces were missed. */
  #torn(): string[] {
    return [...this.#heard].filter(([id, end]) => end > (this.#streams.get(id) ?? end)).map(([id]) => id);
  }

  /**
   * Takes the text of a message that is being streamed. Until its end it only grows, and without a number, so that it is not
   * older than what is known wherever it is longer. Everything else of it has come, or will come, with a number.
   */
  #refresh({ id, seq, body, stream }: Message): void {
    if (stream?.state !== "active" || !this.#isDelivered(id) || seq <= this.#horizon) return;
    if (stream.offset <= (this.#streams.get(id) ?? -1)) return;
    this.#follow({ id, stream });
    this.#push({ type: "updated", id, rev: this.#cursor.rev, kind: "stream", changes: { body, stream } });
  }

  #push(body: Body): void {
    this.#queue.push({ ...body, cursor: this.cursor });
  }
}

/** Returns the number of characters of a text as the server counts them. */
export function characters(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** Keeps a number of a message, and forgets the oldest one where there are too many. */
function note(numbers: Map<string, number>, id: string, number: number): void {
  numbers.delete(id);
  const [oldest] = numbers.keys();
  if (numbers.size >= STREAMS_MAX && oldest !== undefined) numbers.delete(oldest);
  numbers.set(id, number);
}

function numberedOf(event: Exclude<LiveEvent, { name: "message:append" | "channel:horizon" }>, userId: string): Numbered {
  const partial = (id: string, rev: number, kind: UpdateKind, changes: Partial<Message>, own = {}): Numbered => {
    return { lane: "rev", rev, id, body: { type: "updated", kind, changes, own } };
  };
  switch (event.name) {
    case "message:new":
      return { lane: "seq", seq: event.payload.seq, message: event.payload };
    case "message:updated": {
      const { rev, kind, event_id: _, ...message } = event.payload;
      if (message.deleted_at === null) return partial(message.id, rev, kind as UpdateKind, message);
      return { lane: "rev", rev, id: message.id, body: changeOf(message) };
    }
    case "message:deleted": {
      const { rev, id, seq, deleted_at } = event.payload;
      return { lane: "rev", rev, id, body: { type: "deleted", seq, deleted_at } };
    }
    case "reaction:updated": {
      const { message_id, rev, reactions } = event.payload;
      return partial(message_id, rev, "reaction", { reactions }, reactionsOf(userId, event.payload));
    }
    case "pin:updated":
      return partial(event.payload.message_id, event.payload.rev, "pin", { pinned: event.payload.pinned });
    case "poll:updated":
      return partial(event.payload.message_id, event.payload.rev, "poll", { poll: event.payload.poll });
    case "ack:updated": {
      const { message_id, rev, ack_count, user_ids } = event.payload;
      return partial(message_id, rev, "ack", { ack_count, ...(user_ids.includes(userId) && { acked: true }) });
    }
    case "thread:updated":
      return partial(event.payload.thread_id, event.payload.rev, "thread", { thread: threadOf(event.payload) });
  }
}

/** Returns the change that an answer tells. */
function changeOf(message: Message): Change {
  const { deleted_at, seq } = message;
  return deleted_at === null ? { type: "updated", kind: "sync", changes: message } : { type: "deleted", seq, deleted_at, message };
}

/** Returns which reactions a user has added or taken back. */
function reactionsOf(userId: string, event: ReactionUpdatedEvent): Record<string, boolean> {
  const own = (event.changes ?? [event]).filter((change) => change.user_id === userId);
  return Object.fromEntries(own.map(({ emoji, action }) => [emoji, action === "add"]));
}

function threadOf(event: ThreadUpdatedEvent): Message["thread"] {
  const { reply_count, last_reply_at, last_reply_seq, participant_ids } = event;
  return { reply_count, last_reply_at, last_reply_seq, participant_ids };
}

/** How long a hole may stay before `sync` is asked, in milliseconds. */
export const HOLE_MS = 2_000;
/** Live events that wait for their predecessors, at most. Further ones are dropped and asked for again. */
export const PENDING_MAX = 256;
/** Messages of one channel whose streamed text is followed at once; of a further one, only the end is told. */
const STREAMS_MAX = 100;
/** The place before the first message of every channel, for `history`. */
const FIRST = "00000000-0000-0000-0000-000000000000";

// A channel as the server keeps it, with small limits: what `sync` and `history` answer, and the events that it sends.

export const LIMIT = 6;
const PAGE = 4;
const LOG = 24;

export class Server {
  messages = []; // by seq - 1; null when they are removed
  log = []; // by rev - 1: the id that changed
  horizon = 0;
  listeners = new Set();

  static id(seq) {
    return `0190a8c0-0000-7000-8000-${String(seq).padStart(12, "0")}`;
  }

  get seq() {
    return this.messages.length;
  }

  get rev() {
    return this.log.length;
  }

  heads() {
    return { last_seq: this.seq, rev: this.rev };
  }

  tell(name, payload) {
    for (const listener of this.listeners) listener({ name, payload: structuredClone(payload) });
  }

  send(body, stream = null) {
    const seq = this.seq + 1;
    const message = { id: Server.id(seq), seq, body, deleted_at: null, reactions: {}, stream, version: 1, edited_at: null, own: {}, rev: 0 };
    this.messages.push(message);
    this.tell("message:new", message);
  }

  // The messages that are there.
  present() {
    return this.messages.filter((message) => message !== null);
  }

  change(message, event, change) {
    if (!message || message.deleted_at !== null) return;
    this.log.push(message.id);
    const payload = change(message) ?? {};
    const { id, seq } = message;
    const rev = (message.rev = this.rev);
    if (event === "message:updated") this.tell(event, { ...message, rev, ...payload });
    else if (event === "message:deleted") this.tell(event, { id, seq, rev, deleted_at: message.deleted_at });
    else this.tell(event, { message_id: id, rev, ...payload });
  }

  edit(message, body) {
    this.change(message, "message:updated", () => {
      message.body = body;
      message.version++;
      message.edited_at = `edit ${message.version}`;
      if (message.stream) message.stream = { ...message.stream, state: "finished" };
      return { kind: "edit" };
    });
  }

  delete(message) {
    this.change(message, "message:deleted", () => {
      Object.assign(message, { body: "", deleted_at: "now", reactions: {}, own: {}, stream: null });
    });
  }

  // Somebody adds a reaction; the reader takes theirs back if there is one.
  react(message, emoji, isOwn = false) {
    this.change(message, "reaction:updated", () => {
      const { [emoji]: known, ...others } = message.reactions;
      const action = isOwn && message.own[emoji] ? "remove" : "add";
      const count = (known?.count ?? 0) + (action === "add" ? 1 : -1);
      if (isOwn) message.own = { ...message.own, [emoji]: action === "add" };
      message.reactions = count === 0 ? others : { ...message.reactions, [emoji]: { count, user_ids: [] } };
      return { reactions: message.reactions, emoji, action, user_id: isOwn ? "me" : "other" };
    });
  }

  // A message as an answer shows it to the reader.
  static view(message) {
    const mine = Object.entries(message.reactions).map(([emoji, total]) => [emoji, message.own[emoji] ? { ...total, me: true } : total]);
    return { ...message, reactions: Object.fromEntries(mine) };
  }

  append(message, text) {
    if (message?.stream?.state !== "active") return;
    const { offset } = message.stream;
    message.body += text;
    message.stream = { state: "active", offset: offset + [...text].length };
    this.tell("message:append", { id: message.id, offset, text });
  }

  finish(message) {
    if (message?.stream?.state !== "active") return;
    this.change(message, "message:updated", () => {
      message.stream = { ...message.stream, state: "finished" };
      return { kind: "stream" };
    });
  }

  // Messages up to `seq` are too old.
  retain(seq) {
    if (seq <= this.horizon) return;
    this.horizon = seq;
    for (let at = 0; at < seq; at++) this.messages[at] = null;
    this.tell("channel:horizon", { horizon_seq: seq, horizon_id: Server.id(seq) });
  }

  // A backup is put back.
  restore({ messages, log, horizon }) {
    Object.assign(this, structuredClone({ messages, log, horizon }));
  }

  backup() {
    return structuredClone({ messages: this.messages, log: this.log, horizon: this.horizon });
  }

  // Returns the function that makes the answer: heads are read now, rows when it is called.
  answer(request) {
    if (request.ask === "sync") return this.sync(request);
    return request.ask === "history" ? this.history(request) : this.get(request);
  }

  sync({ seq, rev }) {
    const [head, until, horizon] = [this.seq, this.rev, this.horizon];
    const changed = new Map(this.log.slice(rev, until).map((id, at) => [id, rev + at + 1]));
    const isForeign = seq > head || rev > until;
    const reset = isForeign || until - rev > LOG || changed.size > LIMIT;
    const isActive = (message) => message?.stream?.state === "active" && message.seq <= seq && !changed.has(message.id);
    const active = new Set(this.messages.filter(isActive).map(({ id }) => id));
    const missing = head - (reset ? horizon : Math.max(seq, horizon));
    return () => {
      const there = this.present();
      const newest = there.filter((message) => message.seq > head - Math.min(missing, LIMIT) && message.seq <= head);
      const known = reset ? [] : there.filter((message) => changed.has(message.id));
      const streamed = reset ? [] : there.filter(({ id }) => active.has(id));
      // A streamed message may have the number of another change.
      const changes = [
        ...streamed.map((message) => ({ rev: Math.min(until, message.rev), message: Server.view(message) })),
        ...known.map((message) => ({ rev: changed.get(message.id), message: Server.view(message) })),
      ].sort((a, b) => a.rev - b.rev);
      return structuredClone({
        messages: newest.map(Server.view),
        changes,
        seq: head,
        rev: until,
        truncated: newest.length < missing,
        reset,
        horizon_seq: horizon,
        horizon_id: horizon === 0 ? null : Server.id(horizon),
      });
    };
  }

  history({ after }) {
    const rest = this.present().filter((message) => message.id > after);
    return () => structuredClone({ messages: rest.slice(0, PAGE).map(Server.view), has_more_after: rest.length > PAGE });
  }

  get({ ids }) {
    return () => structuredClone(this.present().filter(({ id }) => ids.includes(id)).map(Server.view));
  }
}

// Numbers between 0 and 1, always the same for one seed.
export function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

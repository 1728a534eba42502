// One person of the chat: what they see, what they wrote that is not stored yet, and how both come together again after a time
// without a network. It knows nothing of the page. The rules are in docs/protocol.md, "Catching up: sync".

import { Client, Refusal } from "./client.js";

const PAGE = 50;
const MESSAGES_MAX = 500;
const ASIDE_MAX = 500;
const NOTES_MAX = 20;
export const OUTBOX_MAX = 50;
const GAP_MS = 2_000;
const RETRY_MS = 1_000;
const LOOK_AROUND_MS = 5_000;
const TOKEN_MS = 10_000;
const IN_CHANNEL_TOO = 8;

export class Person {
  name;
  // What the page shows, in words of the page.
  phase = "closed";
  refusal = null;
  me = null;
  channel = null;
  has_earlier = false;
  // Everything that is waiting for its ack, oldest first: { nonce, body, attempts, refusal }.
  outbox = [];
  // What happened to the connection, where it happened: { number, after_seq, text }. Two absences may have the same text.
  notes = [];
  here = [];
  typing = new Map();

  #messages = new Map();
  #names;
  #changed;
  #client;
  #cursor = null;
  #aside = [];
  #gap_timer;
  #around_timer;
  #gone_at = null;
  #noted = 0;
  // How often a connection was lost: what was asked on one is not asked on the next, which catches up by itself.
  #losses = 0;
  #is_sending = false;
  #typed_at = 0;
  #typing_refresh_ms;

  // `names` are the names of all users that the page knows, by id; `changed` is called after every change.
  constructor(name, names, changed) {
    this.name = name;
    this.#names = names;
    this.#changed = changed;
    this.#client = new Client({
      sign_in: () => sign_in(this.name),
      on_event: (event, payload) => this.#event(event, payload),
      on_state: (state, refusal) => this.#state(state, refusal),
    });
  }

  connect() {
    this.#client.open();
  }

  cut() {
    this.#client.close();
  }

  // The messages of the channel, in its order. Replies that stand in a thread only are not part of it.
  messages() {
    const is_shown = ({ thread_id, flags }) => thread_id === null || (flags & IN_CHANNEL_TOO) !== 0;
    return [...this.#messages.values()].filter(is_shown).sort((a, b) => a.seq - b.seq);
  }

  // Puts a message into the outbox. The nonce is made once, so every retry is safe.
  send(body) {
    if (this.outbox.length >= OUTBOX_MAX) return false;
    this.outbox.push({ nonce: crypto.randomUUID(), body, attempts: 0, refusal: null });
    this.#typed_at = 0;
    this.#changed();
    this.#send_all();
    return true;
  }

  // Takes a refused message out of the outbox, or sends it again.
  drop(entry) {
    this.outbox = this.outbox.filter((it) => it !== entry);
    this.#changed();
  }

  again(entry) {
    entry.refusal = null;
    this.#changed();
    this.#send_all();
  }

  // Tells the others that this person types, as often as they have to hear it.
  types() {
    if (this.phase !== "ready" || Date.now() - this.#typed_at < this.#typing_refresh_ms) return;
    this.#typed_at = Date.now();
    this.#tell("typing:start", { channel_id: this.channel.channel_id });
  }

  async earlier() {
    const [first] = this.messages();
    const asked = { channel_id: this.channel.channel_id, before: first?.id, limit: PAGE };
    const page = await this.#tell("history", asked);
    if (!page) return;
    for (const message of page.messages) this.#messages.set(message.id, message);
    this.has_earlier = page.has_more_before;
    this.#changed();
  }

  #state(state, refusal = null) {
    const was_ready = this.phase === "ready";
    this.phase = state === "open" ? "catching up" : state;
    this.refusal = refusal;
    if (was_ready) this.#gone_at = Date.now();
    if (state !== "open") {
      this.#losses += 1;
      this.#stop_gap_timer();
      clearInterval(this.#around_timer);
      this.#aside = [];
      this.here = [];
      this.typing.clear();
    }
    this.#changed();
  }

  #event(name, payload) {
    if (name === "session:ready") return this.#ready(payload);
    if (name === "auth:expiring") return this.#renew();
    if (name === "sync:required") return this.#catch_up_again();
    if (payload.channel_id !== this.channel?.channel_id) return;
    if (name === "typing") return this.#typing(payload);
    const kind = name === "message:new" ? "seq" : "rev";
    if (kind in payload) this.#receive(name, kind, payload);
  }

  async #ready({ user, channels, limits }) {
    this.me = user;
    this.#names.set(user.id, user.username);
    // A visitor is in one channel only.
    const channel = channels.find(({ name }) => name === "first-page");
    if (channel?.channel_id !== this.channel?.channel_id) this.#forget();
    this.channel = channel;
    this.#typing_refresh_ms = limits.typing_refresh_ms;
    if (!channel) return this.#client.close(new Refusal({ message: `${this.name} is not in the channel of this page` }));
    await this.#meet_again(() => (this.#cursor ? this.#sync() : this.#first_page()));
  }

  // Brings the history up to date while events are put aside, then applies those, then sends what waits.
  async #meet_again(bring) {
    this.phase = "catching up";
    const from_seq = this.#cursor?.seq;
    try {
      const brought = await bring();
      if (this.#gone_at) this.#note(from_seq, back_after(Date.now() - this.#gone_at, brought));
    } catch (error) {
      // Without a connection, the next one begins again.
      if (!error.retryable) this.#client.close(error);
      return;
    }
    this.#gone_at = null;
    this.phase = "ready";
    this.#settle();
    this.#look_around();
    clearInterval(this.#around_timer);
    this.#around_timer = setInterval(() => this.#look_around(), LOOK_AROUND_MS);
    this.#changed();
    this.#send_all();
  }

  async #first_page() {
    const { channel_id, last_seq, rev } = this.channel;
    const page = await this.#ask("history", { channel_id, limit: PAGE });
    for (const message of page.messages) this.#keep(message);
    this.has_earlier = page.has_more_before;
    this.#cursor = { seq: Math.max(last_seq, page.messages.at(-1)?.seq ?? 0), rev };
    return { messages: 0, changes: 0 };
  }

  async #sync() {
    const brought = { messages: 0, changes: 0 };
    const { channel_id } = this.channel;
    for (let more = true; more; ) {
      const answer = await this.#ask("sync", { channels: [{ channel_id, ...this.#cursor }] });
      more = answer.more;
      for (const part of answer.channels) {
        if (part.reset || part.truncated) this.#messages.clear();
        if (part.reset || part.truncated) this.has_earlier = part.truncated;
        for (const message of part.messages) this.#keep(message);
        for (const { message } of part.changes) this.#change(message);
        this.#cursor = { seq: part.seq, rev: part.rev };
        brought.messages += part.messages.length;
        brought.changes += part.changes.length;
      }
      if (answer.removed_channels.includes(channel_id)) throw new Refusal({ message: "No member any more" });
    }
    return brought;
  }

  // An event is applied in its order, or waits aside until what is missing has come.
  #receive(name, kind, payload) {
    if (name === "message:new") this.#names.set(payload.author.id, payload.author.username);
    // What does not fit is a gap like any other.
    if (this.#aside.length === ASIDE_MAX) this.#aside.shift();
    this.#aside.push({ name, kind, payload });
    if (this.phase === "ready") this.#settle();
  }

  #settle() {
    for (let before = Infinity; this.#aside.length < before; ) {
      before = this.#aside.length;
      this.#aside = this.#aside.filter((event) => !this.#apply(event));
    }
    if (this.#aside.length === 0) this.#stop_gap_timer();
    else this.#gap_timer ??= setTimeout(() => this.#catch_up_again(), GAP_MS);
    this.#changed();
  }

  // Returns false for an event that is ahead of what is known.
  #apply({ name, kind, payload }) {
    const number = payload[kind];
    if (number > this.#cursor[kind] + 1) return false;
    if (number <= this.#cursor[kind]) return true;
    this.#cursor[kind] = number;
    const known = this.#messages.get(payload.id);
    if (name === "message:new") this.#keep(payload);
    if (name === "message:updated") this.#change(payload);
    if (name === "message:deleted" && known) this.#change({ ...known, body: "", deleted_at: payload.deleted_at });
    return true;
  }

  #stop_gap_timer() {
    clearTimeout(this.#gap_timer);
    this.#gap_timer = undefined;
  }

  #catch_up_again() {
    this.#stop_gap_timer();
    if (this.phase === "ready") this.#meet_again(() => this.#sync());
  }

  #keep(message) {
    this.#messages.set(message.id, message);
    this.#names.set(message.author.id, message.author.username);
    this.typing.delete(message.author.id);
    if (this.#messages.size <= MESSAGES_MAX) return;
    const oldest = [...this.#messages.values()].reduce((a, b) => (a.seq < b.seq ? a : b));
    this.#messages.delete(oldest.id);
    this.has_earlier = true;
  }

  // What is not on the page is read when somebody asks for it.
  #change(message) {
    if (this.#messages.has(message.id)) this.#messages.set(message.id, message);
  }

  #forget() {
    this.#messages.clear();
    this.#cursor = null;
    this.#gone_at = null;
    this.notes = [];
  }

  #note(after_seq, text) {
    this.#noted += 1;
    this.notes = [...this.notes, { number: this.#noted, after_seq, text }].slice(-NOTES_MAX);
  }

  // One after the other, so that they are stored in the order in which they were written.
  async #send_all() {
    if (this.#is_sending) return;
    this.#is_sending = true;
    for (let entry; this.phase === "ready" && (entry = this.outbox.find(({ refusal }) => !refusal)); ) {
      await this.#send_one(entry);
      this.#changed();
    }
    this.#is_sending = false;
  }

  async #send_one(entry) {
    const { nonce, body } = entry;
    entry.attempts += 1;
    try {
      const { message } = await this.#ask("message:send", { channel_id: this.channel.channel_id, body, nonce });
      this.outbox = this.outbox.filter((it) => it !== entry);
      this.#receive("message:new", "seq", message);
    } catch (error) {
      // What nobody answered waits for the next connection, and has the same nonce then.
      if (!error.retryable) entry.refusal = error;
    }
  }

  // Asks until there is an answer that is final. Without a connection there is none.
  async #ask(name, payload) {
    const losses = this.#losses;
    for (;;) {
      try {
        return await this.#client.request(name, payload);
      } catch (error) {
        if (!error.retryable || this.#client.state !== "open") throw error;
        await new Promise((resolve) => setTimeout(resolve, error.retry_after_ms ?? RETRY_MS));
        if (this.#losses !== losses) throw error;
      }
    }
  }

  // What may be lost.
  #tell(name, payload) {
    return this.#client.request(name, payload).catch(() => null);
  }

  // A new token, before the end of the one in use. If that fails, a new connection asks for one, as often as it has to.
  async #renew() {
    try {
      const { auth } = await sign_in(this.name);
      await this.#client.request("auth:refresh", { token: auth.token });
    } catch {
      // Whoever has switched the network off meanwhile wants none.
      if (this.#client.state !== "open") return;
      this.cut();
      this.connect();
    }
  }

  async #look_around() {
    const answer = await this.#tell("presence:list", { channel_id: this.channel.channel_id });
    if (!answer || this.phase !== "ready") return;
    this.here = answer.presences.map(({ user_id }) => this.#names.get(user_id) ?? null);
    this.#changed();
  }

  #typing({ user, typing, expires_in_ms }) {
    this.#names.set(user.id, user.username);
    clearTimeout(this.typing.get(user.id)?.timer);
    this.typing.delete(user.id);
    if (typing) {
      const timer = setTimeout(() => this.#typing({ user, typing: false }), expires_in_ms);
      this.typing.set(user.id, { name: user.username, timer });
    }
    this.#changed();
  }
}

// Gets a token from this server, which makes them for its own page only. A page of your own gets them from your application.
async function sign_in(name) {
  const response = await fetch("/first/token", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name }),
    signal: AbortSignal.timeout(TOKEN_MS),
  });
  const { ok, data, error } = await response.json();
  if (!ok) throw new Refusal(error);
  const address = new URL(`${data.path.replace(/\/$/, "")}/?EIO=4&transport=websocket`, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  return { address, auth: { token: data.token, client: { name: "first page" } } };
}

function back_after(gone_ms, { messages, changes }) {
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const brought = [count(messages, "message"), ...(changes ? [count(changes, "change")] : [])].join(" and ");
  return `Away for ${Math.max(1, Math.round(gone_ms / 1_000))} s. sync brought ${brought}.`;
}

//! The connection: the stock socket, its states, the token before every attempt, and when to try again.

import { io, type ManagerOptions, type Socket, type SocketOptions } from "socket.io-client";
import { Emitter } from "./emitter.js";
import { closed, ImksError } from "./error.js";
import type { ClientInfo, ClientToServerEvents, ServerToClientEvents, SessionReadyEvent } from "./imks.js";
import { pause, refusal, RENEWALS_MAX, type Pauses } from "./retry.js";

/** The stock socket with the events of imks. */
export type ImksSocket = Socket<ServerToClientEvents, ClientToServerEvents>;

/**
 * Why a token is wanted: to `connect`, because the one in use is `expiring`, or because the server says that the last one
 * has `expired`. After `expired` do not answer with a token that was kept.
 */
export type TokenReason = "connect" | "expiring" | "expired";

/** A token, or a function that fetches one. It is asked before every attempt to connect. */
export type Token = string | ((reason: TokenReason) => string | Promise<string>);

/**
 * - `idle`: was not told to connect.
 * - `connecting`, `reconnecting`: tries, until it is connected.
 * - `connected`: `session:ready` has come.
 * - `refused`: the server keeps this client out; only `connect` tries again.
 * - `closed`: for good.
 */
export type State = "idle" | "connecting" | "connected" | "reconnecting" | "refused" | "closed";

/** What `state` events carry. */
export interface StateChange {
  state: State;
  /** Why: in `reconnecting` and `refused`. */
  error?: ImksError;
  /** How long until the next attempt, in milliseconds: in `reconnecting`. */
  delayMs?: number;
}

type StockOptions = Partial<Omit<ManagerOptions & SocketOptions, "auth" | "forceNew" | "multiplex" | "retries">>;

/** The settings of a connection. What it does not name goes to the stock client. */
export interface ConnectionOptions extends StockOptions {
  /** The address of the server, such as `https://chat.example`. */
  url: string;
  token: Token;
  /** The name and version of the program, for logs and lists of sessions. */
  client?: ClientInfo;
  /** `light`: channels that are not in view come as digests. */
  mode?: "full" | "light";
}

/** What a connection tells. */
export interface ConnectionEvents {
  state: (change: StateChange) => void;
}

export class Connection extends Emitter<ConnectionEvents> {
  readonly socket: ImksSocket;
  readonly #token: Token;
  readonly #pauses: Pauses;
  readonly #attemptsMax: number;
  #state: State = "idle";
  #session: SessionReadyEvent | null = null;
  /** The session before, which may go on. */
  #before: SessionReadyEvent | null = null;
  #refusal: ImksError | null = null;
  /** Failed attempts since the last session. */
  #failures = 0;
  /** Tokens asked for in a row because the last one had expired. */
  #renewals = 0;
  #reason: TokenReason = "connect";
  /** What the server said before it ended the connection. */
  #farewell: { error: ImksError; isFinal: boolean; delayMs?: number } | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #refreshTimer: ReturnType<typeof setTimeout> | undefined;
  /** When the server last took a token in `auth:refresh`. */
  #refreshedAt = -Infinity;

  constructor({ url, token, client, mode, ...options }: ConnectionOptions) {
    super();
    this.#token = token;
    this.#pauses = {
      delayMs: options.reconnectionDelay ?? 1_000,
      delayMaxMs: options.reconnectionDelayMax ?? 30_000,
      jitter: options.randomizationFactor ?? 0.5,
    };
    this.#attemptsMax = options.reconnection === false ? 0 : (options.reconnectionAttempts ?? Infinity);
    this.socket = io(url, {
      ...options,
      // The stock client forgets its pauses with each transport that opens, and stays away after a refusal that passes.
      reconnection: false,
      autoConnect: false,
      forceNew: true,
      auth: (give) => void this.#sign({ protocol: 1, ...(client && { client }), ...(mode && { mode }) }, give),
    });
    this.#listen();
    globalThis.addEventListener?.("online", this.#retryNow);
  }

  get state(): State {
    return this.#state;
  }

  /** What `session:ready` said; null without a connection. Where the session goes on, its channels are all of them, as far as they were told. */
  get session(): SessionReadyEvent | null {
    return this.#session;
  }

  /** Why the server keeps this client out; null unless it is `refused`. */
  get refusal(): ImksError | null {
    return this.#state === "refused" ? this.#refusal : null;
  }

  /**
   * Connects, unless it does so already, and returns the session.
   *
   * Rejects when the server keeps this client out for good. Whatever passes by itself is waited for.
   */
  connect(): Promise<SessionReadyEvent> {
    if (this.#state === "idle" || this.#state === "refused") {
      this.#renewals = this.#failures = 0;
      this.#enter({ state: "connecting" });
      this.#attempt();
    }
    return this.ready({ orRefused: true });
  }

  /**
   * Waits for a session. Rejects when the client is closed, or `orRefused` when it is kept out. Whoever waits no longer says
   * so by `signal`.
   */
  ready({ orRefused, signal }: { orRefused: boolean; signal?: AbortSignal }): Promise<SessionReadyEvent> {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (this.#session) resolve(this.#session);
        else if (this.#state === "closed") reject(closed());
        else if (this.#state === "refused" && orRefused) reject(this.#refusal);
        else return false;
        return true;
      };
      if (look()) return;
      const stop = this.on("state", () => void (look() && stop()));
      signal?.addEventListener("abort", stop);
    });
  }

  /** Ends the connection for good. */
  close(): void {
    if (this.#state === "closed") return;
    clearTimeout(this.#timer);
    clearTimeout(this.#refreshTimer);
    globalThis.removeEventListener?.("online", this.#retryNow);
    this.#session = null;
    this.#enter({ state: "closed" });
    this.socket.disconnect();
  }

  #listen(): void {
    const { socket } = this;
    socket.on("session:ready", (session) => {
      this.#failures = this.#renewals = 0;
      this.#reason = "connect";
      this.#farewell = null;
      this.#session = this.#before = continued(this.#before, session);
      this.#enter({ state: "connected" });
    });
    socket.on("channel:left", ({ channel_id }) => {
      const { session } = this;
      if (session) this.#session = this.#before = { ...session, channels: session.channels.filter((it) => it.channel_id !== channel_id) };
    });
    socket.on("connect_error", (error: Error & { data?: unknown }) => {
      // Only the server's own refusals end the socket.
      if (socket.active) return this.#failed(unreachable(error.message, error));
      const verdict = refusal(error.message, error.data, typeof this.#token !== "string" && this.#renewals < RENEWALS_MAX);
      if (!verdict.retry) return this.#refuse(verdict.error);
      if (verdict.tokenExpired) {
        this.#renewals++;
        this.#reason = "expired";
      }
      this.#failed(verdict.error);
    });
    socket.on("disconnect", (reason) => this.#disconnected(reason));
    socket.on("auth:expiring", ({ expires_in_ms }) => this.#expiring(expires_in_ms));
    socket.on("auth:expired", () => {
      const error = new ImksError("token_expired", "The token has expired");
      this.#farewell = { error, isFinal: typeof this.#token === "string" };
      this.#reason = "expired";
    });
    socket.on("auth:revoked", ({ message }) => {
      const error = new ImksError("token_revoked", message ?? "The token was revoked, sign in again");
      this.#farewell = { error, isFinal: true };
    });
    socket.on("session:ended", ({ message, reason, reconnect }) => {
      const error = new ImksError("kicked", message ?? reason, { retryable: reconnect });
      this.#farewell = { error, isFinal: !reconnect };
    });
    socket.on("server:shutdown", ({ reason, reconnect_after_ms }) => {
      this.#farewell = { error: unreachable(`server: ${reason}`), isFinal: false, delayMs: reconnect_after_ms };
    });
  }

  #disconnected(reason: string): void {
    this.#session = null;
    clearTimeout(this.#refreshTimer);
    if (this.#state === "closed" || this.#state === "refused") return;
    const farewell = this.#farewell;
    this.#farewell = null;
    if (farewell?.isFinal) return this.#refuse(farewell.error);
    // As with the stock client: whoever is put out without a word stays away.
    if (reason === "io server disconnect" && !farewell) {
      return this.#refuse(new ImksError("kicked", "The server has ended the connection"));
    }
    this.#failed(farewell?.error ?? unreachable(reason), farewell?.delayMs);
  }

  /** Plans the next attempt. One failure may be told more than once. */
  #failed(error: ImksError, delayMs?: number): void {
    if (this.#timer !== undefined || this.#state === "closed" || this.#state === "refused") return;
    if (this.#failures >= this.#attemptsMax) return this.#refuse(error);
    const own = pause(this.#failures++, this.#pauses, Math.random());
    const delay = delayMs ?? Math.max(own, error.retryAfterMs ?? 0);
    this.#timer = setTimeout(this.#retryNow, delay);
    this.#enter({ state: "reconnecting", error, delayMs: delay });
  }

  /** Does not wait any longer; without an attempt to wait for it does nothing. */
  readonly #retryNow = (): void => {
    if (this.#timer === undefined) return;
    this.#attempt();
  };

  #attempt(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.socket.connect();
  }

  #refuse(error: ImksError): void {
    this.#refusal = error;
    // Before the end of the socket is told, which is no failure then.
    this.#state = "refused";
    this.socket.disconnect();
    this.#enter({ state: "refused", error });
  }

  #enter(change: StateChange): void {
    this.#state = change.state;
    this.emit("state", change);
  }

  async #sign(auth: object, give: (auth: object) => void): Promise<void> {
    const engine = this.socket.io.engine;
    // While the function was asked, another attempt may have begun.
    const isStale = () => engine !== this.socket.io.engine;
    try {
      const token = await this.#fetch(this.#reason);
      if (!isStale()) give({ ...auth, token });
    } catch (cause) {
      if (isStale()) return;
      this.#farewell = { error: tokenFailed(cause), isFinal: false };
      engine.close();
    }
  }

  /**
   * Plans to replace the token: at once, or, where the server has just got one that ends soon too, at half of its time, so
   * that the function is not asked again and again.
   */
  #expiring(leftMs: number): void {
    const now = performance.now();
    const delay = Math.max(leftMs / 2 - (now - this.#refreshedAt), 0);
    clearTimeout(this.#refreshTimer);
    this.#refreshTimer = setTimeout(() => void this.#renew(now + leftMs), delay);
  }

  /** Replaces the token that ends at `end`. What fails is tried again while this can help. */
  async #renew(end: number, attempt = 0): Promise<void> {
    const session = this.#session;
    if (typeof this.#token === "string" || !session) return;
    try {
      const token = await this.#fetch("expiring");
      // Whoever was away meanwhile has shown a new one.
      if (session !== this.#session) return;
      const answer = await this.socket.timeout(REFRESH_TIMEOUT_MS).emitWithAck("auth:refresh", { token });
      if (!answer.ok) throw ImksError.from(answer.error);
      this.#refreshedAt = performance.now();
      // The end of the token before may have been told meanwhile.
      if (this.#farewell?.error.code === "token_expired") this.#farewell = null;
      this.#reason = "connect";
    } catch (cause) {
      if (session !== this.#session) return;
      const delay = pause(attempt, this.#pauses, Math.random());
      if (attempt + 1 < REFRESHES_MAX && performance.now() + delay < end) {
        this.#refreshTimer = setTimeout(() => void this.#renew(end, attempt + 1), delay);
        return;
      }
      // The connection ends with its token, and another attempt asks again. What the server has said is known better.
      this.#farewell ??= { error: tokenFailed(cause), isFinal: false };
    }
  }

  async #fetch(reason: TokenReason): Promise<string> {
    return typeof this.#token === "string" ? this.#token : this.#token(reason);
  }
}

function unreachable(message: string, cause?: unknown): ImksError {
  return new ImksError("unreachable", message, { retryable: true, cause });
}

function tokenFailed(cause: unknown): ImksError {
  return new ImksError("token_failed", "No token could be fetched", { retryable: true, cause });
}

/** How often the token function is asked for the token that follows one that ends soon. */
const REFRESHES_MAX = 6;
/** How long the answer to `auth:refresh` may take, in milliseconds. */
const REFRESH_TIMEOUT_MS = 10_000;

/** What is known of a session, with the channels of `before` where it goes on: it says only what else has changed. */
function continued(before: SessionReadyEvent | null, session: SessionReadyEvent): SessionReadyEvent {
  if (!session.resumed || !before) return session;
  const told = new Set(session.channels.map(({ channel_id }) => channel_id));
  return { ...session, channels: [...before.channels.filter(({ channel_id }) => !told.has(channel_id)), ...session.channels] };
}

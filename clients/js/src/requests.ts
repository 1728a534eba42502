//! Requests with typed answers and a deadline.

import type { Connection } from "./connection.js";
import { ImksError } from "./error.js";
import type { Answer, ClientToServerEvents } from "./imks.js";

/** The payload of a request. */
export type RequestPayload<E extends keyof ClientToServerEvents> = Parameters<ClientToServerEvents[E]>[0];

/** The data of a good answer. */
export type RequestData<E extends keyof ClientToServerEvents> = Extract<
  Parameters<Parameters<ClientToServerEvents[E]>[1]>[0],
  { ok: true }
>["data"];

/** The settings of a request. */
export interface RequestOptions {
  /** How long the answer may take, the time without a connection included; 10,000 if absent. */
  timeoutMs?: number;
}

/**
 * Sends a request, with a connection at the latest before its deadline, and returns the data of the answer.
 *
 * Rejects with an `ImksError`: that of the answer, `timeout`, `disconnected`, `payload_too_large`, or why there is no connection.
 */
export async function request<E extends keyof ClientToServerEvents>(
  connection: Connection,
  event: E,
  payload: RequestPayload<E>,
  { timeoutMs = REQUEST_TIMEOUT_MS }: RequestOptions = {},
): Promise<RequestData<E>> {
  const until = Date.now() + timeoutMs;
  await before(until, event, (signal) => connection.ready({ orRefused: true, signal }));
  return requestNow(connection, event, payload, until - Date.now());
}

/** Sends a request over the connection that there is, and returns the data of the answer. Rejects like `request`. */
export async function requestNow<E extends keyof ClientToServerEvents>(
  connection: Connection,
  event: E,
  payload: RequestPayload<E>,
  timeoutMs = REQUEST_TIMEOUT_MS,
): Promise<RequestData<E>> {
  const { session } = connection;
  // Without one, the stock socket would keep the request for the next connection.
  if (!session) throw disconnected(event);
  fits(event, payload, session.limits.max_payload);
  const socket = connection.socket.timeout(Math.max(timeoutMs, 1)) as unknown as Untyped;
  let answer: Answer<RequestData<E>>;
  try {
    answer = (await socket.emitWithAck(event, payload)) as Answer<RequestData<E>>;
  } catch {
    throw connection.session === session ? late(event) : disconnected(event);
  }
  if (!answer.ok) throw ImksError.from(answer.error);
  return answer.data;
}

/** Throws where the server would end the connection because of the size of a request, or where it is no JSON. */
function fits(event: string, payload: unknown, max = Infinity): void {
  let text: string;
  try {
    text = JSON.stringify([event, payload]);
  } catch (cause) {
    throw new ImksError("invalid_payload", `${event}: the payload is no JSON`, { cause });
  }
  // A UTF-16 unit has three bytes at most.
  if (text.length * 3 + ENVELOPE_BYTES <= max) return;
  const bytes = new TextEncoder().encode(text).length + ENVELOPE_BYTES;
  if (bytes <= max) return;
  throw new ImksError("payload_too_large", `${event}: ${bytes} bytes, and the server takes ${max}`);
}

async function before<T>(until: number, event: string, wanted: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const waiting = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late(event)), Math.max(until - Date.now(), 0));
  });
  return Promise.race([wanted(waiting.signal), timeout]).finally(() => {
    clearTimeout(timer);
    waiting.abort();
  });
}

function late(event: string): ImksError {
  return new ImksError("timeout", `${event}: no answer in time`, { retryable: true });
}

function disconnected(event: string): ImksError {
  return new ImksError("disconnected", `${event}: no connection until the answer came`, { retryable: true });
}

/** The stock client cannot type an event that is itself a parameter. */
interface Untyped {
  emitWithAck(event: string, payload: unknown): Promise<unknown>;
}

/** What stands around a request in its packet, at most: the types, the number of the ack. */
const ENVELOPE_BYTES = 64;
/** How long an answer may take, in milliseconds. */
const REQUEST_TIMEOUT_MS = 10_000;

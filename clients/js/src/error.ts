//! The error of the client: what the server answers, and what the client itself cannot do.

import type { ErrorBody, ErrorCode, ErrorDetails } from "./imks.js";

/**
 * The codes of the client itself, beside those of the server:
 *
 * - `disconnected`: the connection ended before the answer came; nobody knows whether the request was carried out.
 * - `closed`: `close` was called.
 * - `refused`: the server keeps this client out and gives no code of its own.
 * - `kicked`: a back end has put this client out of the server, or of a channel.
 * - `token_failed`: the function that gives tokens has failed; `cause` says how.
 * - `unreachable`: no connection to the server; `cause` says why.
 * - `outbox_full`, `store_failed`: the outbox has no room, or cannot be stored; `cause` says why.
 * - `nonce_expired`: the server no longer knows the nonce, so that another attempt could store the message twice.
 */
export type ClientErrorCode =
  | "disconnected"
  | "closed"
  | "refused"
  | "kicked"
  | "token_failed"
  | "unreachable"
  | "outbox_full"
  | "store_failed"
  | "nonce_expired";

/** A request, a message or a connection that failed. Programs read `code`; `message` is for logs. */
export class ImksError extends Error {
  override readonly name = "ImksError";
  readonly code: ErrorCode | ClientErrorCode;
  /** Whether the same request can succeed later. */
  readonly retryable: boolean;
  /** How long the server wants the client to wait, in milliseconds. */
  readonly retryAfterMs: number | null;
  readonly details: ErrorDetails | null;
  /** The name of the request in the log of the server. */
  readonly requestId: string | null;

  constructor(
    code: ErrorCode | ClientErrorCode,
    message: string,
    { retryable = false, retryAfterMs = null, details = null, requestId = null, cause }: ErrorFacts = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
    this.details = details;
    this.requestId = requestId;
  }

  /** Reads the error object of an answer, or of a refused connection. */
  static from(body: ErrorBody): ImksError {
    return new ImksError(body.code, body.message, {
      retryable: body.retryable,
      retryAfterMs: body.retry_after_ms ?? null,
      details: body.details ?? null,
      requestId: body.request_id ?? null,
    });
  }
}

/** Returns what was thrown; what is no `ImksError` is a bug of the client or of a store. */
export function asImksError(thrown: unknown): ImksError {
  return thrown instanceof ImksError ? thrown : new ImksError("internal", String(thrown), { cause: thrown });
}

/** The error of everything that is left to do when the client is closed. */
export function closed(): ImksError {
  return new ImksError("closed", "The client is closed");
}

/** What an error has beside its code and message. */
export interface ErrorFacts {
  retryable?: boolean;
  retryAfterMs?: number | null;
  details?: ErrorDetails | null;
  requestId?: string | null;
  cause?: unknown;
}

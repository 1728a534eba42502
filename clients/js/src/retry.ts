//! When the client tries again, and when it does not. No I/O.

import { ImksError } from "./error.js";
import type { ErrorBody } from "./imks.js";

/** The pauses between attempts. */
export interface Pauses {
  /** The first one, in milliseconds. */
  delayMs: number;
  /** The longest one, in milliseconds. */
  delayMaxMs: number;
  /** How much a pause may differ from its value, as a fraction of it, so that clients do not come back all at once. */
  jitter: number;
}

/** Returns the pause after the attempt `attempt` (0 is the first) failed, with `random` between 0 and 1. */
export function pause(attempt: number, { delayMs, delayMaxMs, jitter }: Pauses, random: number): number {
  // 2 to the power of 30 is far beyond every longest pause, and still a number.
  const full = Math.min(delayMs * 2 ** Math.min(attempt, 30), delayMaxMs);
  return Math.round(full * (1 - jitter + 2 * jitter * random));
}

/** What to do about a connection that failed or ended. */
export type Verdict = { retry: true; error: ImksError; tokenExpired: boolean } | { retry: false; error: ImksError };

/**
 * Judges what the server said when it refused a connection. A token that has expired is a reason to try again where
 * `canRenew`: there is a function that gives tokens, and it was not asked too often.
 */
export function refusal(message: string, data: unknown, canRenew: boolean): Verdict {
  const error = isErrorBody(data) ? ImksError.from(data) : new ImksError("refused", message);
  if (error.code === "token_expired") return { retry: canRenew, error, tokenExpired: true };
  return { retry: error.retryable, error, tokenExpired: false };
}

/** Whether a request that failed this way is worth an attempt, after `attempts` earlier ones. */
export function isWorthAnotherAttempt(error: ImksError, attempts: number): boolean {
  return error.retryable && (error.code !== "internal" || attempts <= 1);
}

function isErrorBody(data: unknown): data is ErrorBody {
  return typeof data === "object" && data !== null && typeof (data as ErrorBody).code === "string";
}

/** How often in a row a token is renewed because the server says that it has expired. */
export const RENEWALS_MAX = 3;

// A connection without a network: `answer(event, payload)` is the server, and what it throws is the error of the answer.
import { ImksError } from "../dist/index.js";

export class Connection {
  state = "connected";
  refusal = null;
  session = { limits: { max_payload: 1_000 }, user: { id: "me" }, channels: [] };
  asked = [];
  #handlers = new Map();

  constructor(answer) {
    const emitWithAck = async (event, payload) => {
      this.asked.push([event, payload]);
      await new Promise(setImmediate);
      try {
        return { ok: true, data: await answer(event, payload) };
      } catch (error) {
        const { code, message, retryable, retryAfterMs: retry_after_ms } = error;
        if (!(error instanceof ImksError)) throw error;
        return { ok: false, error: { code, message, retryable, retry_after_ms } };
      }
    };
    this.socket = { on: (name, handler) => this.on(name, handler), timeout: () => ({ emitWithAck }) };
  }

  on(name, handler) {
    this.#handlers.set(name, [...(this.#handlers.get(name) ?? []), handler]);
    return () => {};
  }

  tell(name, payload) {
    for (const handler of this.#handlers.get(name) ?? []) handler(payload);
  }

  async ready() {
    return this.session;
  }
}

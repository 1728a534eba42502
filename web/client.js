// A small Socket.IO client: Engine.IO 4 over a WebSocket, Socket.IO 5, the namespace `/`, JSON packets.
//
// It is here because imks contains no foreign code, and a lone binary has no other source of a client (docs/adr/0058). A page of
// your own uses the stock `socket.io-client`, which can also poll, upgrade, and send binary data.

const PAUSE_MS = 500;
const PAUSE_MS_MAX = 5_000;
const ANSWER_MS = 10_000;
const HANDSHAKE_MS = 10_000;

// An answer that is not `ok`: `code` says why, `retryable` whether the same request can still succeed, `retry_after_ms` when.
export class Refusal extends Error {
  constructor({ code, message, retryable = false, retry_after_ms }) {
    super(message);
    Object.assign(this, { code, retryable, retry_after_ms });
  }
}

const no_answer = () => new Refusal({ code: "timeout", message: "There was no answer", retryable: true });

const too_large = () => new Refusal({ code: "payload_too_large", message: "It is larger than the server takes" });

export class Client {
  // "closed", "connecting", "open", "waiting" (for the next attempt), or "refused" (for good).
  state = "closed";
  #sign_in;
  #on_event;
  #on_state;
  #socket = null;
  #auth;
  #answers = new Map();
  #next_id = 0;
  #attempts = 0;
  #silence_ms = HANDSHAKE_MS;
  #bytes_max = Infinity;
  #timer;

  // `sign_in` is asked before every attempt: `{ address, auth }`. `on_event` gets every event with its payload, `on_state` every
  // state, with the refusal if there is one.
  constructor({ sign_in, on_event, on_state }) {
    this.#sign_in = sign_in;
    this.#on_event = on_event;
    this.#on_state = on_state;
  }

  open() {
    if (this.state === "closed" || this.state === "refused") this.#connect();
  }

  // Cuts the connection without a word to the server. Nothing is tried until `open`. With a refusal, that is the reason.
  close(refusal) {
    this.#end(refusal ? "refused" : "closed", refusal);
  }

  // Resolves with the `data` of the answer, or rejects with a `Refusal`.
  request(name, payload) {
    if (this.state !== "open") return Promise.reject(no_answer());
    const id = String(this.#next_id++);
    const packet = `42${id}${JSON.stringify([name, payload])}`;
    // The server ends a connection on which this comes, each time.
    if (new TextEncoder().encode(packet).length > this.#bytes_max) return Promise.reject(too_large());
    return new Promise((resolve, reject) => {
      const settle = (answer) => {
        clearTimeout(timer);
        this.#answers.delete(id);
        if (answer?.ok) resolve(answer.data);
        else reject(answer ? new Refusal(answer.error) : no_answer());
      };
      const timer = setTimeout(settle, ANSWER_MS);
      this.#answers.set(id, settle);
      this.#socket.send(packet);
    });
  }

  async #connect() {
    const attempt = {};
    this.#socket = attempt;
    this.#become("connecting");
    try {
      const { address, auth } = await this.#sign_in();
      if (this.#socket !== attempt) return;
      this.#auth = auth;
      this.#listen(new WebSocket(address));
    } catch (error) {
      if (this.#socket !== attempt) return;
      if (error instanceof Refusal && !error.retryable) this.#end("refused", error);
      else this.#try_again();
    }
  }

  #listen(socket) {
    this.#socket = socket;
    this.#silence_ms = HANDSHAKE_MS;
    this.#watch();
    // A socket that was replaced has nothing more to say.
    socket.onmessage = ({ data }) => socket === this.#socket && this.#packet(data);
    socket.onclose = () => socket === this.#socket && this.#try_again();
  }

  // Every packet shows that the server is there; a silence longer than its heartbeat, that it is not.
  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#try_again(), this.#silence_ms);
  }

  // Engine.IO: 0 open, 1 close, 2 ping, 3 pong, 4 message.
  #packet(data) {
    this.#watch();
    const body = data.slice(1);
    if (data[0] === "0") {
      const { pingInterval, pingTimeout, maxPayload } = JSON.parse(body);
      this.#silence_ms = pingInterval + pingTimeout;
      this.#bytes_max = maxPayload;
      this.#socket.send(`40${JSON.stringify(this.#auth)}`);
    }
    if (data[0] === "1") this.#try_again();
    if (data[0] === "2") this.#socket.send("3");
    if (data[0] === "4") this.#message(body);
  }

  // Socket.IO: 0 CONNECT, 1 DISCONNECT, 2 EVENT, 3 ACK, 4 CONNECT_ERROR.
  #message(data) {
    const [, kind, id, json] = /^(\d)(\d*)(.*)$/s.exec(data);
    if (kind === "0") {
      this.#attempts = 0;
      this.#become("open");
    }
    if (kind === "1") this.#end("refused", new Refusal({ code: "ended", message: "The server ended the connection" }));
    if (kind === "2") this.#on_event(...JSON.parse(json));
    if (kind === "3") this.#answers.get(id)?.(JSON.parse(json)[0]);
    if (kind === "4") {
      const { message, data: error } = JSON.parse(json);
      this.#end("refused", new Refusal(error ?? { code: "refused", message }));
    }
  }

  // The pause doubles, and is a little different for each client, so that a server that starts is not stormed.
  #try_again() {
    this.#end("waiting");
    const pause_ms = Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** this.#attempts++);
    this.#timer = setTimeout(() => this.#connect(), pause_ms * (0.5 + Math.random() / 2));
  }

  #end(state, refusal) {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close?.();
    this.#become(state, refusal);
    for (const settle of [...this.#answers.values()]) settle();
  }

  #become(state, refusal) {
    this.state = state;
    this.#on_state(state, refusal);
  }
}

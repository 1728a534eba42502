// What the scripts share: a client that records what it gets, and questions with answers.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { io } from "socket.io-client";
import msgpack from "socket.io-msgpack-parser";

export const PATIENCE_MS = 20_000;

const TRANSPORTS = {
  polling: ["polling"],
  websocket: ["websocket"],
  upgrade: ["polling", "websocket"],
};

// A client that is not connected yet. `received` holds every event as [name, payload], in order.
export function client(url, token, options = {}) {
  const { via = "websocket", ...rest } = options;
  const socket = io(url, {
    autoConnect: false,
    forceNew: true,
    transports: TRANSPORTS[via],
    auth: token === undefined ? {} : { token, protocol: 1 },
    reconnectionDelay: 50,
    reconnectionDelayMax: 200,
    ...(process.env.PARSER === "msgpack" ? { parser: msgpack } : {}),
    ...rest,
  });
  socket.received = [];
  socket.onAny((name, payload) => socket.received.push([name, payload]));
  return socket;
}

// Connects and waits for `session:ready`, which must be the first event; with `upgrade` also for the WebSocket.
export async function connect(url, token, options = {}) {
  const socket = client(url, token, options);
  const ready = answer(once(socket, "session:ready"), "session:ready");
  const refused = once(socket, "connect_error").then(([error]) => {
    throw new Error(`refused: ${error.message} ${JSON.stringify(error.data)}`);
  });
  const upgraded =
    options.via === "upgrade"
      ? new Promise((resolve) => socket.io.on("open", () => socket.io.engine.once("upgrade", resolve)))
      : undefined;
  socket.connect();
  [socket.session] = await Promise.race([ready, refused]);
  assert.equal(socket.received[0][0], "session:ready", "the first event is session:ready");
  if (upgraded) await answer(upgraded, "the upgrade");
  return socket;
}

// Emits and returns the whole envelope. When it is too fast it does what the answer says, as a client should.
export async function ask(socket, event, ...request) {
  for (;;) {
    const answer = await socket.timeout(PATIENCE_MS).emitWithAck(event, ...request);
    if (answer.error?.code !== "rate_limited") return answer;
    await new Promise((resolve) => setTimeout(resolve, answer.error.retry_after_ms));
  }
}

// Emits and returns the data of a good answer.
export async function must(socket, event, ...request) {
  const answer = await ask(socket, event, ...request);
  assert.equal(answer.ok, true, `${event} answers ${JSON.stringify(answer)}`);
  return answer.data;
}

// Emits and returns the error of a bad answer, after a look at its shape.
export async function refuses(socket, code, event, ...request) {
  const { ok, error } = await ask(socket, event, ...request);
  assert.equal(ok, false, `${event} is refused`);
  assert.equal(error.code, code, JSON.stringify(error));
  assert.equal(typeof error.message, "string");
  assert.equal(typeof error.retryable, "boolean");
  return error;
}

// Waits until `socket` has got `count` events of that name and returns their payloads.
export async function events(socket, name, count) {
  const got = () => socket.received.filter(([event]) => event === name).map(([, payload]) => payload);
  const all = new Promise((resolve) => {
    const look = () => {
      if (got().length < count) return;
      socket.offAny(look);
      resolve();
    };
    socket.onAny(look);
    look();
  });
  await answer(all, `${count} times ${name}, got ${got().length}`);
  return got();
}

export function answer(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in time: ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// The test that runs us speaks in lines: we print JSON, it writes words.
export function tell(value) {
  console.log(JSON.stringify(value));
}

export function words() {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  return async (expected) => {
    const { value } = await lines.next();
    assert.equal(value, expected);
  };
}

export function env(name) {
  assert.ok(process.env[name], `${name} is set`);
  return process.env[name];
}

export function rising(numbers) {
  return numbers.every((number, index) => index === 0 || number === numbers[index - 1] + 1);
}

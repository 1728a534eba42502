// What an Admin UI sees and does: plays the same scenes against any server and prints what was seen, ids and times
// replaced by words. tests/admin_tests.rs compares the reference and imks line by line.
import assert from "node:assert/strict";
import { once } from "node:events";
import { io } from "socket.io-client";
import { answer, env, tell } from "./client.js";

const URL = env("URL");
const PASSWORD = env("PASSWORD");
const DEVELOPMENT = env("MODE") === "development";
const READ_ONLY = env("READ_ONLY") === "true";

const lines = [];
const names = new Map();

function note(what, ...rest) {
  lines.push(`${what} ${JSON.stringify(rest.map(worded))}`);
}

// Ids become names, times become `time`.
function worded(value) {
  if (typeof value === "string") {
    if (/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value)) return "time";
    return names.get(value) ?? value;
  }
  if (Buffer.isBuffer(value) || value instanceof ArrayBuffer) return `bytes ${Buffer.from(value).toString("hex")}`;
  if (Array.isArray(value)) return value.map(worded);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.keys(value).sort().map((key) => [key, worded(value[key])]));
  }
  return value;
}

function open(path, options) {
  const socket = io(URL + path, { autoConnect: false, forceNew: true, transports: ["websocket"], ...options });
  socket.seen = [];
  socket.onAny((...event) => socket.seen.push(event));
  return socket;
}

async function enter(path, name, options = {}) {
  const socket = open(path, options);
  const refused = once(socket, "connect_error").then(([error]) => Promise.reject(error));
  const entered = answer(Promise.race([once(socket, "connect"), refused]), `${name} connects`);
  socket.connect();
  await entered;
  names.set(socket.id, name);
  return socket;
}

async function refusal(auth) {
  const socket = open("/admin", { auth, reconnection: false });
  const refused = answer(once(socket, "connect_error"), "a refusal");
  socket.connect();
  const [error] = await refused;
  socket.disconnect();
  return error.message;
}

// Waits for an event of the page, which stays among what was seen.
async function sees(socket, wanted) {
  const found = () => socket.seen.some(wanted);
  const seen = new Promise((resolve) => {
    const look = () => found() && (socket.offAny(look), resolve());
    socket.onAny(look);
    look();
  });
  await answer(seen, `${wanted}; seen ${JSON.stringify(socket.seen)}`);
}

// Notes what the page has seen of the namespaces of users, but for the numbers.
function noteSeen(scene, page) {
  for (const [event, ...args] of page.seen.splice(0)) {
    if (event === "server_stats") continue;
    if (event === "socket_connected" || event === "all_sockets") [args[0]].flat().forEach(stripped);
    note(`${scene}: ${event}`, ...args);
  }
}

// What differs from run to run is checked and replaced.
function stripped(socket) {
  const { handshake } = socket;
  assert.match(socket.clientId, /^[\w-]{12}$/);
  socket.clientId = "client";
  assert.ok(Math.abs(Date.now() - handshake.issued) < 60_000, "issued is in milliseconds");
  handshake.issued = "issued";
  assert.ok(Math.abs(Date.now() - Date.parse(handshake.time)) < 60_000, handshake.time);
  assert.match(handshake.time, /^\w{3} \w{3} \d\d \d{4} \d\d:\d\d:\d\d GMT[+-]\d{4} \(.*\)$/);
  handshake.time = "date";
  handshake.address = handshake.address.replace("::ffff:", "");
  assert.equal(handshake.auth, undefined);
  socket.rooms.sort((a, b) => worded(a).localeCompare(worded(b)));
  handshake.url = handshake.url.replace(/&t=\w+/, "");
  delete handshake.query.t;
  delete handshake.headers["sec-websocket-key"];
  delete handshake.headers.host;
  // The reference shows them; nobody should.
  delete handshake.headers.cookie;
  delete handshake.headers.authorization;
}

async function signing_in() {
  note("nothing", await refusal({}));
  note("session that is none", await refusal({ sessionId: "0123456789abcdef" }));
  note("wrong name", await refusal({ username: "nobody", password: PASSWORD }));
  note("wrong password", await refusal({ username: env("USERNAME"), password: "wrong" }));
  note("other types", await refusal({ sessionId: null, username: 1, password: {} }));
  const page = await enter("/admin", "page", { auth: { username: env("USERNAME"), password: PASSWORD } });
  await sees(page, ([event]) => event === "session");
  const [, sessionId] = page.seen.find(([event]) => event === "session");
  assert.match(sessionId, /^[0-9a-f]{16}$/);
  names.set(sessionId, "session");
  await sees(page, ([event]) => event === (DEVELOPMENT ? "all_sockets" : "config"));
  page.disconnect();
  const again = await enter("/admin", "page", { auth: { sessionId } });
  await sees(again, ([event]) => event === (DEVELOPMENT ? "all_sockets" : "config"));
  assert.ok(!again.seen.some(([event]) => event === "session"), "the session is known");
  note("signed in", again.seen.find(([event]) => event === "config"));
  return again;
}

async function numbers(page, user) {
  page.seen.length = 0;
  for (let n = 0; n < 3; n++) await user.timeout(5_000).emitWithAck("join", `room${n}`);
  const stats = () => page.seen.filter(([event]) => event === "server_stats").map(([, stats]) => stats);
  const buckets = () => stats().flatMap(({ aggregatedEvents }) => aggregatedEvents);
  const packets = (type) => buckets().filter((it) => it.type === type).reduce((sum, it) => sum + it.count, 0);
  await sees(page, () => stats().length >= 2 && packets("packetsIn") >= 3 && packets("packetsOut") >= 3);
  const last = stats().at(-1);
  const types = (value) => Object.fromEntries(Object.entries(value).map(([key, it]) => [key, typeof it]));
  note("stats", types(last), last.serverId, last.clientsCount, last.pollingClientsCount);
  note("namespaces", last.namespaces.sort((a, b) => (a.name < b.name ? -1 : 1)));
  note("a bucket", types(buckets().find(({ type }) => type === "packetsIn")));
  assert.ok(buckets().every(({ timestamp }) => timestamp % 1_000 === 0), "timestamps are whole seconds");
  assert.ok(packets("bytesIn") > packets("packetsIn"));
  for (let n = 0; n < 3; n++) await user.timeout(5_000).emitWithAck("leave", `room${n}`);
  if (DEVELOPMENT) await sees(page, ([event, , room]) => event === "room_left" && room === "room2");
}

async function disconnections(page) {
  page.seen.length = 0;
  (await enter("/", "guest")).disconnect();
  const gone = ({ type, subType }) => type === "rawDisconnection" && subType !== undefined;
  const bucket = ([event, stats]) => event === "server_stats" && stats.aggregatedEvents.some(gone);
  await sees(page, bucket);
  note("disconnection", page.seen.find(bucket)[1].aggregatedEvents.find(gone).subType);
}

// Everything that happens to users, as the page sees it.
async function stream(page) {
  page.seen.length = 0;
  const options = { query: { x: "a b" }, extraHeaders: { authorization: "secret", cookie: "a=secret" } };
  const anna = await enter("/", "anna", { auth: { token: "secret" }, ...options });
  await sees(page, ([event, socket]) => event === "socket_connected" && socket.id === anna.id);
  if (!process.env.REFERENCE) assert.ok(!JSON.stringify(page.seen).includes("secret"), "no secrets are shown");
  noteSeen("connect", page);
  await anna.timeout(5_000).emitWithAck("join", "room");
  await sees(page, ([event, nsp, room]) => event === "room_joined" && nsp === "/" && room === "room");
  noteSeen("join", page);
  await anna.timeout(5_000).emitWithAck("name", "Anna");
  await sees(page, ([event]) => event === "socket_updated");
  noteSeen("data", page);
  anna.emit("echo", 1, { a: [true, null] }, "é");
  await sees(page, ([event]) => event === "event_sent");
  noteSeen("event", page);
  anna.emit("echo", Buffer.from([1, 2]));
  await sees(page, ([event]) => event === "event_sent");
  noteSeen("binary event", page);
  const late = await enter("/admin", "late page", { auth: page.auth });
  await sees(late, ([event]) => event === "all_sockets");
  const ofUsers = late.seen.find(([event]) => event === "all_sockets")[1].filter(({ nsp }) => nsp === "/");
  ofUsers.forEach(stripped);
  note("all sockets", ofUsers.sort((a, b) => names.get(a.id).localeCompare(names.get(b.id))));
  late.disconnect();
  await sees(page, ([event, nsp, id]) => event === "socket_disconnected" && names.get(id) === "late page");
  await sees(page, ([event, nsp, , id]) => event === "room_left" && names.get(id) === "late page");
  noteSeen("another page", page);
  await anna.timeout(5_000).emitWithAck("leave", "room");
  await sees(page, ([event, nsp, room]) => event === "room_left" && room === "room");
  noteSeen("leave", page);
  const bert = await enter("/chat", "bert", { transports: ["polling", "websocket"] });
  await sees(page, ([event, socket]) => event === "socket_updated" && socket.transport === "websocket");
  page.seen = page.seen.filter(([event]) => event === "socket_updated");
  noteSeen("upgrade", page);
  anna.emit("bye");
  await sees(page, ([event, , room]) => event === "room_left" && names.get(room) === "anna");
  noteSeen("server disconnects", page);
  bert.disconnect();
  await sees(page, ([event, , room]) => event === "room_left" && names.get(room) === "bert");
  noteSeen("client leaves", page);
}

async function commands(page, anna) {
  const bert = await enter("/", "bert");
  const companion = page.io.socket("/chat").connect();
  const heard = (socket) => socket.seen.splice(0);
  // What is answered on the page's own connection comes after its command; what is answered to the others after that
  // comes after what the command sent them.
  const done = async (what, ...command) => {
    page.emit(...command);
    for (const socket of [companion, anna, bert]) {
      if (!socket.active) continue;
      const answered = socket.timeout(5_000).emitWithAck("join", "settled").catch(() => {});
      await Promise.race([answered, once(socket, "disconnect")]);
    }
    note(what, heard(anna), heard(bert), anna.connected, bert.connected);
  };
  await done("to all", "emit", "/", undefined, "hello", 1, { a: 2 });
  await done("to all without arguments", "emit", "/", null, "hello");
  await done("to one", "emit", "/", anna.id, "hello", Buffer.from([7]));
  await done("join", "join", "/", "room", bert.id);
  await done("to a room", "emit", "/", "room", "hello");
  await done("leave", "leave", "/", "room");
  await done("to an empty room", "emit", "/", "room", "hello");
  await done("join all", "join", "/", "everybody");
  await done("to everybody", "emit", "/", "everybody", "hello");
  await done("disconnect", "_disconnect", "/", false, anna.id);
  await done("disconnect all", "_disconnect", "/", true);
}

const page = await signing_in();
const user = await enter("/", "user");
await numbers(page, user);
if (DEVELOPMENT) await stream(page);
else {
  await disconnections(page);
  const quiet = page.seen.every(([event]) => event === "server_stats");
  note("quiet", quiet);
}
page.seen.length = 0;
await commands(page, user);
if (DEVELOPMENT && !READ_ONLY) {
  const events = page.seen.map(([event]) => event).filter((event) => event !== "server_stats");
  note("seen of commands", ...new Set(events.sort()));
}
page.disconnect();
user.disconnect();
tell({ done: true, lines });
process.exit(0);

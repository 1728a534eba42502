// What a client missed and the reply to its CONNECT are one payload by polling: the stock client keeps events that come
// before the reply, so one that loses the second of two payloads would get those of the first one twice.
import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { PATIENCE_MS, env, tell } from "./client.js";

const MISSED = 40;
const at = (sid) => `${env("URL")}/socket.io/?EIO=4&transport=polling${sid ? `&sid=${sid}` : ""}`;
const poll = async (sid) => (await (await fetch(at(sid))).text()).split("\x1e");
const post = async (sid, body) => assert.equal(await (await fetch(at(sid), { method: "POST", body })).text(), "ok");
const open = async () => JSON.parse((await poll())[0].slice(1)).sid;

const first = await open();
await post(first, "40");
const { pid } = JSON.parse((await poll(first))[0].slice(2));
await post(first, '420["join","room"]');
assert.match((await poll(first))[0], /^430/);
await post(first, "1");

const other = io(env("URL"), { transports: ["websocket"] });
await new Promise((resolve) => other.once("connect", resolve));
await other.timeout(PATIENCE_MS).emitWithAck("join", "room");
const told = new Promise((resolve) => other.on("shared", (number) => number === MISSED - 1 && resolve()));
for (let number = 0; number < MISSED; number++) other.emit("share", "room", number);
await told;
other.close();

const second = await open();
await post(second, `40${JSON.stringify({ pid })}`);
const payload = await poll(second);
assert.equal(payload.length, MISSED + 1);
payload.slice(0, -1).forEach((packet, number) => assert.equal(JSON.parse(packet.slice(2))[1], number));
assert.equal(JSON.parse(payload.at(-1).slice(2)).pid, pid);
tell({ done: true });

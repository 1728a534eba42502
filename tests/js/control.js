// A back end in JavaScript that tells imks what to do, made from proto/imks/v1 and nothing else; see
// tests/contract/control.rs. Reads TARGET (host:port), KEY and CHANNEL.
import assert from "node:assert/strict";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { PATIENCE_MS, env, tell } from "./client.js";

const includeDirs = [new URL("../../proto", import.meta.url).pathname];
const contract = loadSync("imks/v1/control.proto", { includeDirs, keepCase: true, longs: Number, defaults: true });
const { ControlService } = grpc.loadPackageDefinition(contract).imks.v1;
const service = new ControlService(env("TARGET"), grpc.credentials.createInsecure());
const channel_id = env("CHANNEL");
const key = new grpc.Metadata();
key.set("authorization", `Bearer ${env("KEY")}`);

const call = (name, request, metadata = key) =>
  new Promise((resolve, reject) => {
    const deadline = Date.now() + PATIENCE_MS;
    service[name](request, metadata, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
const send = (body, more, metadata) => {
  const identity = { kind: "KIND_BOT", name: "Build" };
  return call("SendMessageAs", { channel_id, identity, content: { body }, ...more }, metadata);
};
const refused = (promise, code) => assert.rejects(promise, (error) => error.code === grpc.status[code]);

const { stored: first } = await send("build 7 is done", { request_id: "build-7" });
const { stored: again } = await send("build 7 is done", { request_id: "build-7" });
assert.deepEqual([again.message_id, first.duplicate, again.duplicate], [first.message_id, false, true]);
await refused(send("x", {}, new grpc.Metadata()), "UNAUTHENTICATED");
await refused(send("stale", { expect: { last_seq: first.seq - 1 } }), "ABORTED");
const payload_json = JSON.stringify({ version: 7 });
await call("Broadcast", { target: { channel_id }, event: "app:release", payload_json });
const { messages_json } = await call("GetMessages", { channel_id, limit: 1 });
assert.deepEqual(messages_json.map((message) => JSON.parse(message).id), [first.message_id]);
service.close();
tell({ done: true });

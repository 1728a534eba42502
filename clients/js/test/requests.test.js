// Requests, with a server that answers what the test says.
import assert from "node:assert/strict";
import { test } from "node:test";
import { request } from "../dist/requests.js";
import { Connection } from "./connection.js";

test("what the server would end the connection for is not sent", async () => {
  const connection = new Connection(() => "done");
  const send = (body) => request(connection, "message:send", { channel_id: "c", body });
  // In UTF-8, as it is sent: the same number of characters fits, or does not.
  assert.equal(await send("x".repeat(800)), "done");
  await assert.rejects(send("é".repeat(800)), { code: "payload_too_large", retryable: false });
  await assert.rejects(send('"'.repeat(800)), { code: "payload_too_large" });
  assert.equal(connection.asked.length, 1);
});

test("what is no JSON is refused at once", async () => {
  const connection = new Connection(() => "done");
  await assert.rejects(request(connection, "ping", { number: 1n }), { code: "invalid_payload", retryable: false });
});

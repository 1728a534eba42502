// Many clients that send all the time, through every death of the server, and a ledger of what was acknowledged.
//
// A message whose ack did not come is sent again with the same nonce: the promise is that this is always safe. At the
// end the ledger is compared with the history.
import assert from "node:assert/strict";
import { connect, env, must, rising, tell, words } from "./client.js";

const url = env("URL");
const tokens = env("TOKENS").split(",");
const PAGE = 100;
const ACK_TIMEOUT_MS = 2_000;
const PAUSE_MS = Number(process.env.PAUSE_MS ?? 5);
const IN_FLIGHT = 4;

const acked = new Map(); // nonce → {id, seq}
const attempted = new Set();
let stopped = false;
let repeated = 0; // answers to a second try whose first one had been stored

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function connected(socket) {
  while (!socket.connected) await pause(20);
}

// One message, until it is acknowledged.
async function deliver(socket, channel_id, nonce) {
  attempted.add(nonce);
  for (;;) {
    await connected(socket);
    let answer;
    try {
      answer = await socket.timeout(ACK_TIMEOUT_MS).emitWithAck("message:send", { channel_id, body: nonce, nonce });
    } catch {
      continue; // the outcome is unknown: again, with the same nonce
    }
    if (answer.ok) {
      const { id, seq } = answer.data.message;
      if (answer.data.duplicate) repeated++;
      const earlier = acked.get(nonce);
      assert.ok(!earlier || (earlier.id === id && earlier.seq === seq), "one nonce, one message");
      acked.set(nonce, { id, seq });
      return;
    }
    assert.equal(answer.error.retryable, true, JSON.stringify(answer));
    await pause(answer.error.retry_after_ms ?? 50);
  }
}

async function sender(socket, channel_id, name) {
  for (let n = 0; !stopped; n++) {
    await deliver(socket, channel_id, `${name} ${n}`);
    await pause(PAUSE_MS);
  }
}

// Everything, oldest first.
async function history(socket, channel_id) {
  const all = [];
  let before;
  for (;;) {
    const page = await must(socket, "history", { channel_id, limit: PAGE, ...(before && { before }) });
    all.push(...page.messages);
    if (!page.has_more_before) break;
    before = page.messages.reduce((oldest, message) => (message.seq < oldest.seq ? message : oldest)).id;
  }
  return all.sort((a, b) => a.seq - b.seq);
}

function compare(messages) {
  const seqs = messages.map((message) => message.seq);
  assert.equal(seqs[0], 1);
  assert.ok(rising(seqs), "seq has no gap and no double");
  const byNonce = new Map(messages.map((message) => [message.body, message]));
  assert.equal(byNonce.size, messages.length, "no message is there twice");
  for (const [nonce, { id, seq }] of acked) {
    const stored = byNonce.get(nonce);
    assert.ok(stored, `acknowledged and lost: ${nonce}`);
    assert.deepEqual([stored.id, stored.seq], [id, seq], `the ack of ${nonce} told the truth`);
  }
  for (const nonce of byNonce.keys()) assert.ok(attempted.has(nonce));
}

const word = words();
const sockets = await Promise.all(tokens.map((token) => connect(url, token)));
const channel_id = sockets[0].session.channels[0].channel_id;
const senders = sockets.flatMap((socket, who) =>
  Array.from({ length: IN_FLIGHT }, (_, lane) => sender(socket, channel_id, `sender ${who} lane ${lane} message`)),
);
Promise.all(senders).catch((error) => {
  console.error(error);
  process.exit(1);
});
let told = 0;
const report = setInterval(() => {
  if (acked.size !== told) tell({ acked: (told = acked.size) });
}, 20);

await word("finish");
stopped = true;
await Promise.all(senders);
clearInterval(report);
const messages = await history(sockets[0], channel_id);
compare(messages);
for (const socket of sockets) socket.close();
tell({ done: true, acked: acked.size, stored: messages.length, repeated });
process.exit(0);

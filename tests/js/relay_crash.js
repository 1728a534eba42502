// A stock client behind a balancer that sends every request to another node, while the node that owns its session is
// killed; see tests/cluster/relay.rs.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { connect, env, must, tell, words } from "./client.js";

const word = words();
const alice = await connect(env("URL"), env("TOKEN_ALICE"), { via: env("VIA") });
const channel_id = alice.session.channels[0].channel_id;
const reasons = [];
alice.on("disconnect", (reason) => reasons.push(reason));
let owner = alice.session.server.node;
alice.on("session:ready", ({ server }) => { owner = server.node; });

// Sends until it is acknowledged. What was sent twice is stored once, by its nonce.
const acked = [];
async function send(body) {
  for (;;) {
    const answer = await alice.timeout(2_000).emitWithAck("message:send", { channel_id, body, nonce: body }).catch(() => null);
    if (answer?.ok) return acked.push(body);
    if (answer) assert.equal(answer.error.retryable, true, JSON.stringify(answer));
    if (answer?.error.retry_after_ms) await setTimeout(answer.error.retry_after_ms);
  }
}

for (let n = 0; n < 10; n++) await send(`before ${n}`);
const first = owner;
tell({ owner: first });
let killed = false;
word("killed").then(() => { killed = true; });
for (let n = 0; n < 40 || !killed || owner === first; n++) await send(`during ${n}`);
assert.ok(reasons.length >= 1);
assert.notEqual(owner, first);
const stored = [];
for (let seq = 0; ;) {
  const { channels } = await must(alice, "sync", { channels: [{ channel_id, seq, rev: 0 }] });
  const page = channels[0]?.messages ?? [];
  if (page.length === 0) break;
  stored.push(...page.map(({ body }) => body));
  seq = page.at(-1).seq;
}
assert.deepEqual(acked.filter((body) => !stored.includes(body)), [], "what was acknowledged is stored");
assert.equal(new Set(stored).size, stored.length, "and once");
alice.close();
tell({ done: true });

// The stock client in a real browser, over WebTransport. The server echoes; see tests/transport_tests.rs.
import assert from "node:assert/strict";
import { browse } from "./chromium.js";
import { PATIENCE_MS, env, tell } from "./client.js";

// Runs in the page.
async function talk({ url, transports, patience }) {
  const answer = await fetch(`${url}/webtransport/certificate-hashes`).then((it) => it.json());
  const serverCertificateHashes = answer.hashes.map(({ algorithm, value }) => ({
    algorithm,
    value: Uint8Array.from(atob(value), (it) => it.charCodeAt(0)),
  }));
  const socket = io(url, {
    transports,
    forceNew: true,
    reconnection: false,
    transportOptions: { webtransport: { serverCertificateHashes } },
  });
  const seen = [];
  const heard = (what, subscribe) =>
    new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`no answer in time: ${what}; seen ${seen}`)), patience);
      subscribe(resolve, reject);
    });
  const upgraded = heard("upgrade", (resolve) => {
    if (transports.length === 1) return resolve("webtransport");
    socket.io.on("open", () => socket.io.engine.once("upgrade", ({ name }) => resolve(name)));
  });
  upgraded.catch(() => {});
  await heard("connect", (resolve, reject) => {
    socket.on("connect", resolve);
    socket.on("connect_error", (error) => reject(new Error(`${error.message} ${error.description}`)));
  });
  const first = socket.io.engine.transport.name;
  await upgraded;
  const transport = socket.io.engine.transport.name;
  const text = await socket.timeout(patience).emitWithAck("echo", "héllo €😀");
  const binary = await socket.timeout(patience).emitWithAck("echo", new Uint8Array([0, 1, 254, 255]));
  const long = await socket.timeout(patience).emitWithAck("echo", "x".repeat(200_000));
  const facts = await socket.timeout(patience).emitWithAck("facts");
  const closed = heard("disconnect", (resolve) => socket.on("disconnect", resolve));
  const last = heard("last", (resolve) => socket.on("last", resolve));
  socket.emit(transports.includes("polling") ? "drop" : "leave");
  return {
    first, transport, text, facts,
    binary: [...new Uint8Array(binary)],
    long: long.length,
    last: await last,
    closed: await closed,
  };
}

await browse(async (page, origin) => {
  const url = env("URL");
  const fresh = await page.evaluate(talk, { url, transports: ["webtransport"], patience: PATIENCE_MS });
  const upgrade = await page.evaluate(talk, {
    url,
    transports: ["polling", "webtransport"],
    patience: PATIENCE_MS,
  });
  for (const talked of [fresh, upgrade]) {
    assert.equal(talked.transport, "webtransport");
    assert.equal(talked.text, "héllo €😀");
    assert.deepEqual(talked.binary, [0, 1, 254, 255]);
    assert.equal(talked.long, 200_000);
    assert.equal(talked.last, "last");
  }
  assert.deepEqual([fresh.first, upgrade.first], ["webtransport", "polling"]);
  assert.deepEqual([fresh.facts.transport, upgrade.facts.transport], ["webtransport", "polling"]);
  assert.deepEqual([fresh.facts.secure, fresh.facts.address], [true, "127.0.0.1"]);
  assert.equal(fresh.facts.origin, origin);
  // A browser that is busy may see the end of the session before the packet that it has received.
  assert.match(fresh.closed, /^(io server disconnect|transport close)$/);
  // Usually "transport close"; a browser that is busy may see the end of the connection first.
  assert.match(upgrade.closed, /^transport (close|error)$/);
  if (process.env.VERBOSE) console.error(fresh, upgrade);
  tell({ done: true });
});

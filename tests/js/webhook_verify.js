// Verifies the signature of a webhook as Standard Webhooks 1.0 describes it: secret, id, timestamp, body, signatures.

import { createHmac, timingSafeEqual } from "node:crypto";

const [secret, id, timestamp, body, signatures] = process.argv.slice(2);
const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
const expected = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest();
const valid = signatures.split(" ").some((signature) => {
  const [version, text] = signature.split(",");
  const given = Buffer.from(text, "base64");
  return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
});
console.log(valid);

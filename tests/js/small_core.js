// A core in fifty lines: who may come in, and what they may do. It prints a token for everybody.
//   openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -out core.key
//   KEY=core.key ADDRESS=127.0.0.1:9000 node small_core.js, then IMKS_CORE_URL=http://127.0.0.1:9000 imks
import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import jwt from "jsonwebtoken";
const key = createPrivateKey(readFileSync(process.env.KEY));
const { x, y } = createPublicKey(key).export({ format: "jwk" });
const public_key = Buffer.concat([Buffer.of(4), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")]);

const lobby = "0190a8c0-0000-7000-8000-000000000000";
const [VIEW_CHANNEL, SEND_MESSAGES, READ_HISTORY] = [1, 2, 4]; // see the table of permissions
const user = (n, username, bits = VIEW_CHANNEL | SEND_MESSAGES | READ_HISTORY) =>
  ({ id: `0190a8c0-0000-7000-8000-00000000000${n}`, username, bits });
const users = [user(1, "alice"), user(2, "bob"), user(3, "carol", VIEW_CHANNEL | READ_HISTORY), user(4, "mallory", 0)];
const bits = (user_id, channel_id) => (channel_id === lobby && users.find(({ id }) => id === user_id)?.bits) || 0;
const membership = (user_id) => bits(user_id, lobby) && { channel_id: lobby, user_id, channel_name: "lobby" };
const named = { algorithm: "ES256", keyid: "1", issuer: "imks", audience: "imks", expiresIn: "1h" };

const TokenService = {
  GetSigningKeys: () => ({ keys: [{ issuer: named.issuer, kid: named.keyid, algorithm: "ALGORITHM_ES256", public_key }] }),
  VerifyToken: ({ token }) => {
    try {
      const { sub, username, iat, exp } = jwt.verify(token, createPublicKey(key), { algorithms: [named.algorithm] });
      return { valid: true, user_id: sub, username, issued_at_us: iat * 1e6, expires_at_us: exp * 1e6 };
    } catch { return { reason: "REASON_INVALID" }; }
  },
};
const MemberService = {
  ListUserChannels: ({ user_id }) => ({ memberships: [membership(user_id)].filter(Boolean) }),
  CheckMember: ({ user_id, channel_id }) => ({ membership: (channel_id === lobby && membership(user_id)) || null }),
  BatchGetUsers: ({ user_ids }) => ({ users: users.filter(({ id }) => user_ids.includes(id)) }),
};
const PermissionService = {
  GetEffective: ({ user_id, channel_id }) => ({ effective: { channel_id, bits: bits(user_id, channel_id) } }),
  BatchGetEffective: ({ user_id, channel_ids }) => ({ effective: channel_ids.map((it) => ({ channel_id: it, bits: bits(user_id, it) })) }),
  Check: (it) => ({ allowed: !!(bits(it.user_id, it.channel_id) & (1 << (it.permission - 1))), visible: !!bits(it.user_id, it.channel_id) }),
};

const options = { keepCase: true, includeDirs: [new URL("../../proto", import.meta.url).pathname] };
const files = ["core/v1/token.proto", "core/v1/member.proto", "core/v1/permission.proto"];
const { core } = grpc.loadPackageDefinition(loadSync(files, options));
const server = new grpc.Server();
const unary = (answer) => (call, done) => done(null, answer(call.request));
for (const [name, calls] of Object.entries({ TokenService, MemberService, PermissionService }))
  server.addService(core.v1[name].service, Object.fromEntries(Object.entries(calls).map(([it, answer]) => [it, unary(answer)])));
server.bindAsync(process.env.ADDRESS, grpc.ServerCredentials.createInsecure(), () => console.log(JSON.stringify({ listening: true,
  tokens: Object.fromEntries(users.map(({ id, username }) => [username, jwt.sign({ username }, key, { ...named, subject: id })])) })));

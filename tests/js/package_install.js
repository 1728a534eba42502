// @imks/client as somebody gets it: packed, installed into an empty project, compiled with it, and run. The programs of its
// README compile too, and one of its examples runs.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { env, tell } from "./client.js";

const PACKAGE = fileURLToPath(new URL("../../clients/js", import.meta.url));
const TYPESCRIPT = join(PACKAGE, "node_modules/typescript/bin/tsc");

const PROGRAM = `
import { apply, createClient, ImksError, type ChannelEvent, type Message } from "@imks/client";

const { URL: url = "", TOKEN_ALICE: token = "" } = process.env;
const client = createClient({ url, token: async () => token, transports: ["websocket"] });
client.on("state", ({ state, error }) => console.error(state, error?.code));
client.on("read:updated", (read) => console.error(read.read_seq.toFixed()));
// @ts-expect-error: no such event is sent by the server
client.on("message:gone", () => {});
const { channels: [channel] } = await client.connect();
if (!channel) throw new Error("no channel");
const stored: Message = await client.channel(channel.channel_id).send({ body: "from a program" });
const { messages } = await client.request("history", { channel_id: channel.channel_id, limit: 1 });
console.error(messages[0]?.body.length, stored.author.username);
// @ts-expect-error: channel_id is missing
const wrong: unknown = await client.request("history", {}).catch((error: unknown) => error);
if (!(wrong instanceof ImksError) || wrong.code !== "invalid_payload") throw wrong;
const code: unknown = new ImksError("timeout", "late").code;
let list: readonly Message[] = [];
for await (const event of client.channel(channel.channel_id).messages({ from: "start" })) {
  list = apply(list, event satisfies ChannelEvent);
  if (event.type === "message" && event.message.id === stored.id) break;
  // @ts-expect-error: only messages have one
  if (event.type === "gap") console.error(event.message);
}
client.close();
console.log(JSON.stringify({ bodies: list.map(({ body }) => body), code }));
`;

const OPTIONS = {
  compilerOptions: { strict: true, target: "es2022", module: "nodenext", types: [], lib: ["es2022", "dom"] },
  files: ["program.ts", "readme.ts", "process.d.ts"],
};

const run = (program, args, cwd, input = "") => execFileSync(program, args, { cwd, input, encoding: "utf8", stdio: "pipe" });

// The programs of the README are one program after the other.
async function readme() {
  const text = await readFile(join(PACKAGE, "README.md"), "utf8");
  const programs = [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, program]) => program);
  assert.ok(programs.length >= 5);
  return programs.join("");
}

// The versions of the dependencies are those that the package is developed with.
async function lock(project, tarball) {
  const { packages } = JSON.parse(await readFile(join(PACKAGE, "package-lock.json"), "utf8"));
  const { "": own, ...all } = packages;
  const dependencies = Object.entries(all).filter(([, { dev }]) => !dev);
  const wanted = { "@imks/client": `file:${tarball}` };
  const entry = { version: own.version, resolved: `file:${tarball}`, dependencies: own.dependencies };
  await writeFile(join(project, "package.json"), JSON.stringify({ type: "module", dependencies: wanted }));
  await writeFile(join(project, "package-lock.json"), JSON.stringify({
    lockfileVersion: 3,
    packages: { "": { dependencies: wanted }, ...Object.fromEntries(dependencies), "node_modules/@imks/client": entry },
  }));
}

const project = await mkdtemp(join(tmpdir(), "imks-package-"));
try {
  const [packed] = JSON.parse(run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", project], PACKAGE));
  const files = packed.files.map(({ path }) => path).sort();
  const needed = ["README.md", "package.json", "dist/index.js", "dist/index.d.ts", "dist/imks.d.ts", "dist/LICENSE-MIT"];
  assert.deepEqual(needed.filter((file) => !files.includes(file)), []);
  assert.deepEqual(files.filter((path) => /^(src|test|node_modules)|tsbuildinfo/.test(path)), []);
  await lock(project, packed.filename);
  run("npm", ["ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"], project);
  await writeFile(join(project, "program.ts"), PROGRAM);
  await writeFile(join(project, "readme.ts"), await readme());
  await writeFile(join(project, "process.d.ts"), "declare const process: { env: Record<string, string | undefined> };");
  await writeFile(join(project, "tsconfig.json"), JSON.stringify(OPTIONS));
  run("node", [TYPESCRIPT], project);
  const chat = "node_modules/@imks/client/examples/chat.mjs";
  assert.match(run("node", [chat, env("URL"), env("TOKEN_ALICE")], project, "from the terminal\n"), /^\(connected\)$/m);
  const bodies = ["from the terminal", "from a program"];
  assert.deepEqual(JSON.parse(run("node", ["program.js"], project)), { bodies, code: "timeout" });
} catch (error) {
  console.error(error.stdout, error.stderr);
  throw error;
} finally {
  await rm(project, { recursive: true, force: true });
}
tell({ done: true });

// A web application with its own login (Express, a JWT per session) and a page with the stock client. Its public key is the
// only thing that imks knows of it.
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import express from "express";
import jwt from "jsonwebtoken";

const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const users = new Map([["ada@example.com", { id: 1, name: "Ada Lovelace" }], ["bob@example.com", { id: 2, name: "Bob" }]]);

const PAGE = `<!doctype html>
<form id="login"><input name="email" aria-label="Email"><input name="password" aria-label="Password"><button>Sign in</button></form>
<p id="status"></p><ul id="messages"></ul>
<form id="send"><input name="body" aria-label="Message"><button>Send</button></form>
<script src="/socket.io.js"></script>
<script>
  const show = (text) => { messages.appendChild(document.createElement("li")).textContent = text; };
  login.onsubmit = async (event) => {
    event.preventDefault();
    const body = JSON.stringify(Object.fromEntries(new FormData(login)));
    const response = await fetch("/login", { method: "POST", headers: { "content-type": "application/json" }, body });
    if (!response.ok) return (status_text("wrong password"));
    const { token, chat } = await response.json();
    const socket = io(chat, { transports: ["websocket"], auth: { token } });
    socket.on("session:ready", ({ user, channels: [{ channel_id }] }) => {
      status_text("signed in as " + user.username);
      send.onsubmit = async (event) => {
        event.preventDefault();
        await socket.emitWithAck("message:send", { channel_id, body: send.body.value });
      };
    });
    socket.on("message:new", ({ author, body }) => show(author.username + ": " + body));
  };
  const status_text = (text) => { document.getElementById("status").textContent = text; };
</script>`;

// Serves the application, writes its public key to a file, and returns the server and its address. Pages find imks at
// `chat.url`.
export async function application(public_key_file, chat) {
  writeFileSync(public_key_file, publicKey.export({ type: "spki", format: "pem" }));
  const app = express();
  app.use(express.json());
  app.get("/", (_, response) => response.type("html").send(PAGE));
  app.use(express.static(new URL("./node_modules/socket.io-client/dist", import.meta.url).pathname));
  app.post("/login", ({ body }, response) => {
    const user = users.get(body.email);
    if (!user || body.password !== "secret") return response.sendStatus(401);
    const claims = { name: user.name, channels: ["support"] };
    const token = jwt.sign(claims, privateKey, { algorithm: "RS256", subject: `${user.id}`, expiresIn: "1h" });
    response.json({ token, chat: chat.url });
  });
  const listening = app.listen(0, "127.0.0.1");
  await once(listening, "listening");
  return { listening, url: `http://127.0.0.1:${listening.address().port}` };
}

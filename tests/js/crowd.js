// A client that loses its connection again and again, while a crowd waits to sign in: it comes back by itself, at once.
import { once } from "node:events";
import { answer, connect, env, tell, words } from "./client.js";

const next = words();
const alice = await connect(env("URL"), env("TOKEN_ALICE"), { via: env("VIA") });
let refused = 0;
alice.io.on("reconnect_error", () => refused++);

tell({ connected: true });
for (let back = 1; back <= 5; back++) {
  await next("cut");
  const ready = once(alice, "session:ready");
  alice.io.engine.close();
  await answer(ready, "the new session");
  tell({ back, refused });
}
await next("end");
alice.close();
tell({ done: true });

// A stock client that tells what it hears; see tests/contract/core.rs and tests/contract/control.rs.
import { connect, env, tell, words } from "./client.js";

const hears = words();
const socket = await connect(env("URL"), env("TOKEN"));
socket.onAny((event, data) => tell({ event, data }));
socket.on("disconnect", (data) => tell({ event: "disconnect", data }));
tell({ event: "session:ready", data: socket.session });
await hears("end");
socket.close();
tell({ done: true });

//! Binary payloads: a `Binary` field is an attachment on the wire, in both directions, and is not copied on its way.
//!
//! ```text
//! cargo run --example binary
//! ```
//!
//! Then with Node.js (`npm install socket.io-client`):
//!
//! ```text
//! node -e '
//!   const socket = require("socket.io-client").io("http://localhost:3000");
//!   const file = { name: "a.txt", content: Buffer.from("hello") };
//!   socket.on("uploaded", (copy) => console.log("uploaded:", copy));
//!   socket.emit("upload", file, (answer) => console.log(answer));
//! '
//! ```
//!
//! What to see: the answer with the size and the first bytes, and the whole file, sent back to everybody.

use imks::socket::{Binary, EventError, NamespaceBuilder, Reply, Server, Socket};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Upload {
    name: String,
    content: Binary,
}

#[derive(Serialize)]
struct Stored {
    bytes: usize,
    preview: Binary,
}

#[tokio::main]
async fn main() -> imks::ImksResult<()> {
    let server = Server::builder(Default::default()).namespace("/", uploads);
    server.listen(([127, 0, 0, 1], 3000))?.until(tokio::signal::ctrl_c()).await;
    Ok(())
}

fn uploads(ns: &mut NamespaceBuilder) {
    ns.on_typed("upload", |socket: Socket, upload: Upload| async move {
        let bytes = upload.content.len();
        let preview = Binary(upload.content.0.slice(..bytes.min(4)));
        socket.namespace().emit("uploaded", &upload)?;
        Ok::<_, EventError>(Reply(Stored { bytes, preview }))
    });
}

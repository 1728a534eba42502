//! Acknowledgements in both directions: the server answers a client, asks one client, and asks everybody at once.
//!
//! ```text
//! cargo run --example ack
//! ```
//!
//! Then with Node.js (`npm install socket.io-client`), in as many terminals as you like:
//!
//! ```text
//! node -e '
//!   const socket = require("socket.io-client").io("http://localhost:3000");
//!   socket.on("your age?", (answer) => answer(20 + Math.floor(Math.random() * 40)));
//!   socket.on("vote", (question, answer) => Math.random() < 0.8 && answer(Math.random() < 0.5));
//!   socket.emit("add", 1, 2, (sum) => console.log("1 + 2 =", sum));
//!   socket.emit("add", 1, "two", (error) => console.log(error));
//!   setTimeout(() => socket.emit("call a vote", "Tea?", (result) => console.log(result)), 1000);
//! '
//! ```
//!
//! What to see: the sum, an error for arguments of the wrong type, and the result of a vote that some clients do not
//! take part in, after two seconds at most.

use std::time::Duration;

use imks::socket::{EventError, NamespaceBuilder, Reply, Server, Socket, parser::One};
use serde::Serialize;
use tokio::signal::ctrl_c;

#[derive(Serialize)]
struct VoteResult {
    yes: usize,
    no: usize,
    silent: usize,
}

#[tokio::main]
async fn main() -> imks::ImksResult<()> {
    tracing_subscriber::fmt().init();
    let server = Server::builder(Default::default()).namespace("/", answers);
    server.listen(([127, 0, 0, 1], 3000))?.until(ctrl_c()).await;
    Ok(())
}

fn answers(ns: &mut NamespaceBuilder) {
    ns.on_connected(|socket| async move {
        match socket.emit_with_ack("your age?", &(), Duration::from_secs(5)).await {
            Ok(answer) => tracing::info!(socket = socket.id(), age = answer.json(), "welcome"),
            Err(error) => tracing::info!(socket = socket.id(), %error, "no age"),
        }
    });
    ns.on_typed("add", |_: Socket, (a, b): (i64, i64)| async move { Reply(a + b) });
    ns.on_typed("call a vote", |socket: Socket, question: String| async move {
        let everybody = socket.namespace().everybody();
        let answers = everybody.emit_with_ack("vote", &One(&question), Duration::from_secs(2)).await?;
        let votes: Vec<bool> = answers.first()?;
        let yes = votes.iter().filter(|vote| **vote).count();
        Ok::<_, EventError>(Reply(VoteResult { yes, no: votes.len() - yes, silent: answers.silent.len() }))
    });
}

//! A client of the server in `examples/commands`: sends each line as a command, and prints what the server tells.
//!
//! ```text
//! cargo run --example commands
//! cargo run --example commands_client -- anna                        # in two more terminals, with two names
//! cargo run --example commands_client -- otto http://localhost:3000
//! ```
//!
//! What to see: type `JOIN lobby` and `SEND lobby hello` in both; each terminal prints what the other one does, and
//! `BROADCAST hello` reaches everybody. End the server and start it again: the clients come back, without their rooms.

use std::process::ExitCode;

use imks::client::{Client, ClientEvent, ClientResult};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[path = "commands/protocol.rs"]
#[allow(dead_code, reason = "the server parses commands")]
mod protocol;

use protocol::Message;

#[tokio::main]
#[allow(clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "nobody".into());
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:3000".into());
    match talk(&url, &name).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn talk(url: &str, name: &str) -> ClientResult<()> {
    let client = Client::builder(url).auth(&serde_json::json!({ "name": name })).build()?;
    let socket = client.socket("/")?;
    socket.on("message", |message: Message| async move { println!("{message}") });
    let mut events = client.events();
    socket.connect().await?;
    println!("JOIN room, LEAVE room, SEND room text, BROADCAST text");
    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => socket.emit("message", &line).await?,
                Ok(None) | Err(_) => break,
            },
            event = events.next() => match event {
                Some(ClientEvent::Disconnected { reason }) => println!("away: {reason}"),
                Some(ClientEvent::Joined { recovered: false, .. }) => println!("here, in no room"),
                Some(_) => {}
                None => break,
            },
        }
    }
    client.close().await;
    Ok(())
}

//! A Rust client of the chat in `examples/chat.rs`: says what is typed, prints what others say, and comes back by itself.
//!
//! ```text
//! cargo run --example chat
//! cargo run --example client -- anna                        # in two more terminals, with two names
//! cargo run --example client -- otto http://localhost:3000
//! ```
//!
//! What to see: each terminal prints who is in the lobby and what the others say. End the server and start it again: the
//! clients say that they are away, and then that they are back.

use std::process::ExitCode;

use imks::client::{Client, ClientEvent, ClientResult, Socket};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[derive(Deserialize)]
struct Said {
    from: String,
    text: String,
}

#[tokio::main]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "nobody".into());
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:3000".into());
    match chat(&url, &name).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn chat(url: &str, name: &str) -> ClientResult<()> {
    let client = Client::builder(url).auth(&serde_json::json!({ "name": name })).build()?;
    let socket = client.socket("/")?;
    socket.on("said", |said: Said| async move { println!("{}: {}", said.from, said.text) });
    socket.on("joined", |name: String| async move { println!("{name} is here") });
    socket.on("left", |name: String| async move { println!("{name} is gone") });
    let mut events = client.events();
    socket.connect().await?;

    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => socket.emit_args("say", &("lobby", line)).await?,
                Ok(None) | Err(_) => break,
            },
            event = events.next() => match event {
                Some(ClientEvent::Disconnected { reason }) => println!("away: {reason}"),
                // Whenever the session is new, its rooms are too.
                Some(ClientEvent::Joined { recovered: false, .. }) => enter(&socket).await?,
                Some(_) => {}
                None => break,
            },
        }
    }
    client.close().await;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn enter(socket: &Socket) -> ClientResult<()> {
    let names: Vec<String> = socket.emit_with_ack("join", "lobby").await?;
    println!("in the lobby: {}", names.join(", "));
    Ok(())
}

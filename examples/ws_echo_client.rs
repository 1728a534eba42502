//! A WebSocket client without Socket.IO, for the server in `examples/ws_echo_server.rs`.
//!
//! ```text
//! cargo run --example ws_echo_server
//! cargo run --example ws_echo_client -- hello world
//! ```
//!
//! What to see: `hello` and `world`, each as it has come back.

use std::process::ExitCode;

use imks::client::ClientResult;
use imks::client::raw::{Message, RawClient};

#[tokio::main]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match echoed("ws://127.0.0.1:3001", &words).await {
        Ok(words) => {
            words.iter().for_each(|word| println!("{word}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            ExitCode::FAILURE
        }
    }
}

/// Sends some words and returns what comes back.
pub async fn echoed(url: &str, words: &[String]) -> ClientResult<Vec<String>> {
    let mut connection = RawClient::connect(url).await?;
    let mut echoed = Vec::new();
    for word in words {
        connection.send_text(word).await?;
        if let Some(Message::Text(text)) = connection.receive().await? {
            echoed.push(text);
        }
    }
    connection.close(1000, "said everything").await?;
    // What the server says to that, and the end.
    while connection.receive().await?.is_some() {}
    Ok(echoed)
}

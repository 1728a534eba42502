//! A chat in which nothing is missing: messages come once and in order, whatever happens to the network, the server or this
//! program.
//!
//! ```text
//! make run                                             # a complete server
//! TOKEN=$(target/debug/imks token alice)               # in another terminal
//! cargo run --example chat_client -- $TOKEN            # reads the first channel of alice; what you type is sent
//! ```
//!
//! What to see: end the server, type something, and start it again. The message is stored once, and the program prints what
//! others have said meanwhile. End the program too: it goes on after the last message that it has printed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use imks::client::chat::{ChannelEvent, Chat, Cursor, Messages};
use imks::client::{Client, ClientError, ClientResult, FileStore, Retry};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main]
#[allow(clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    let done = match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [token] => talk(token).await,
        _ => Err(ClientError::Config("usage: chat_client TOKEN".into())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn talk(token: &str) -> ClientResult<()> {
    let folder = std::env::current_dir().map_err(|error| ClientError::Config(error.to_string()))?;
    let (chat, mut messages) = enter("http://127.0.0.1:3000", token, &folder).await?;
    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            line = next_line(&mut messages, &folder) => match line? {
                Some(line) => println!("{line}"),
                None => return Ok(()),
            },
            Ok(typed) = lines.next_line() => match typed {
                Some(text) => drop(chat.send(messages.channel(), text).await?),
                None => return Ok(()),
            },
        }
    }
}

/// Connects, and opens the first channel of the user where an earlier run has left it.
pub async fn enter(url: &str, token: &str, folder: &Path) -> ClientResult<(Chat, Messages)> {
    let outbox = FileStore::new(folder.join("chat_client.outbox"));
    let client = Client::builder(url)
        .auth_token(token)
        .retry_initial()
        .message_retry(Retry::forever(Duration::from_secs(1)))
        .outbox(outbox)
        .build()?;
    let chat = Chat::open(&client).await?;
    let first = chat.channels().first().map(|channel| channel.channel_id);
    let channel = first.ok_or_else(|| ClientError::Config("the user is in no channel".into()))?;
    let left = std::fs::read(folder.join(CURSOR)).ok();
    let cursor = left.and_then(|json| serde_json::from_slice::<Cursor>(&json).ok());
    let reading = chat.messages(channel);
    let reading = match cursor {
        Some(cursor) => reading.since(cursor),
        None => reading.last(20),
    };
    Ok((chat, reading.open()))
}

/// Returns the next line to show, and keeps the place after it.
pub async fn next_line(messages: &mut Messages, folder: &Path) -> ClientResult<Option<String>> {
    while let Some(event) = messages.next().await {
        let line = match event? {
            ChannelEvent::Message(message) => {
                Some(format!("#{} {}: {}", message.seq, message.author.username, message.body))
            }
            ChannelEvent::Deleted { seq, .. } => Some(format!("#{seq} is gone")),
            _ => None,
        };
        let json = serde_json::to_vec(&messages.cursor()).unwrap_or_default();
        std::fs::write(folder.join(CURSOR), json).map_err(|error| ClientError::Outbox(error.into()))?;
        if line.is_some() {
            return Ok(line);
        }
    }
    Ok(None)
}

/// The file with the place after what was shown.
const CURSOR: &str = "chat_client.cursor";

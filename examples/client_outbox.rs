//! Messages that arrive whatever happens: an outbox in a file, in front of a messaging server.
//!
//! ```text
//! make run                                                       # a complete server
//! TOKEN=$(target/debug/imks token alice)                         # in another terminal
//! cargo run --example client_outbox -- $TOKEN                    # prints the channels of alice
//! cargo run --example client_outbox -- $TOKEN CHANNEL_ID hello
//! ```
//!
//! Another server than that of `make run` is named by the variable `URL`.
//!
//! What to see: the number of the message in its channel. End the server and say something again: the message waits
//! in `outbox.imks`, also when you end this program. Start both again, in any order: the message is stored, once.

use std::process::ExitCode;
use std::time::Duration;

use imks::client::{Client, ClientError, ClientEvent, ClientResult, FileStore, Reconnect, Retry, nonce};
use serde_json::{Value, json};

#[tokio::main]
#[allow(clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &args[..] {
        [token] => channels(token).await,
        [token, channel, text] => say(token, channel, text).await,
        _ => Err(ClientError::Config("usage: client_outbox TOKEN [CHANNEL_ID TEXT]".into())),
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
async fn channels(token: &str) -> ClientResult<()> {
    let client = Client::builder(&url()).auth_token(token).build()?;
    let socket = client.socket("/")?;
    let mut ready = socket.stream::<Value>("session:ready");
    socket.connect().await?;
    let ready = ready.next().await.ok_or(ClientError::Closed)??;
    for channel in ready["channels"].as_array().into_iter().flatten() {
        println!("{} {}", channel["channel_id"], channel["name"]);
    }
    client.close().await;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
async fn say(token: &str, channel: &str, text: &str) -> ClientResult<()> {
    let second = Duration::from_secs(1);
    let client = Client::builder(&url())
        .auth_token(token)
        .retry_initial()
        .reconnect(Reconnect::decorrelated_jitter(second, 30 * second))
        .message_retry(Retry::forever(second))
        .outbox(FileStore::new("outbox.imks").durable())
        .on_event(|event| match event {
            ClientEvent::Reconnecting { attempt, delay } => println!("attempt {attempt} in {delay:?}"),
            ClientEvent::MessageSent { id } => println!("{id} has left the outbox"),
            _ => {}
        })
        .build()?;
    let socket = client.socket("/")?;
    let message = json!({ "channel_id": channel, "body": text, "nonce": nonce() });
    // From here on it is in the file, whether there is a connection or not.
    let delivery = socket.send("message:send", &message).await?;
    socket.connect().await?;
    let answer: Value = delivery.acknowledged().await?;
    match answer["data"]["message"]["seq"].as_i64() {
        Some(number) => println!("stored as number {number}"),
        None => println!("refused: {}", answer["error"]),
    }
    client.close().await;
    Ok(())
}

fn url() -> String {
    std::env::var("URL").unwrap_or_else(|_| "http://127.0.0.1:3000".into())
}

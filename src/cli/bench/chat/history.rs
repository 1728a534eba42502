//! Reads a channel back: every message above a number, oldest first.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ledger::Stored;
use crate::cli::bench::failure::failed;
use crate::client::Socket;
use crate::{ImksError, ImksResult};

/// Returns the messages of a channel whose number is above `after`. What fails for a cause that passes is asked again
/// for a minute.
///
/// # Errors
/// [`ImksError::Io`] if the server does not answer or refuses.
pub(in crate::cli) async fn read(socket: &Socket, channel_id: &str, after: i64) -> ImksResult<Vec<Stored>> {
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = page(socket, channel_id, before.as_deref()).await?;
        let is_last = !page.has_more_before || page.messages.first().is_none_or(|first| first.seq <= after);
        before = page.messages.first().map(|first| first.id.clone());
        pages.push(page.messages);
        if is_last {
            break;
        }
    }
    let oldest_first = pages.into_iter().rev().flatten().filter(|message| message.seq > after);
    Ok(oldest_first.map(|Message { seq, body, .. }| Stored { seq, body }).collect())
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Message>,
    has_more_before: bool,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    seq: i64,
    body: String,
}

async fn page(socket: &Socket, channel_id: &str, before: Option<&str>) -> ImksResult<Page> {
    let mut request = json!({ "channel_id": channel_id, "limit": PAGE });
    if let Some(before) = before {
        request["before"] = before.into();
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = socket.emit_with_ack::<Value>("history", &request).await;
        let pause = match answer {
            Ok(mut answer) if answer["ok"] == true => {
                return Ok(serde_json::from_value(answer["data"].take())?);
            }
            Ok(answer) => {
                let error = &answer["error"];
                let after = Duration::from_millis(error["retry_after_ms"].as_u64().unwrap_or(PAUSE_MS));
                if error["retryable"] != true || Instant::now() + after > deadline {
                    let context = format!("the history was refused: {error}");
                    return Err(ImksError::Io { context, source: std::io::Error::other("no history") });
                }
                after
            }
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                Duration::from_millis(PAUSE_MS)
            }
            Err(error) => return Err(failed("reading the history", error)),
        };
        tokio::time::sleep(pause).await;
    }
}

/// The number of messages in a page: what the server gives at most.
const PAGE: usize = 100;

/// How long a page is asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause before a page is asked for again, in milliseconds, where the server does not name one.
const PAUSE_MS: u64 = 200;

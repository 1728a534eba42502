//! Reads a channel back: every message above a number, oldest first.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ledger::{MARK_CHARS, Stored};
use crate::cli::bench::failure::failed;
use crate::cli::terminal::text;
use crate::client::Socket;
use crate::{ImksError, ImksResult};

/// Returns the messages of a channel whose number is above `after`, of each body only the part that can be a mark: a
/// long run would not fit into memory otherwise. What fails for a cause that passes is asked again for a minute.
///
/// # Errors
/// [`ImksError::Io`] if the server does not answer, refuses, or gives pages that lead nowhere.
pub(in crate::cli) async fn read(socket: &Socket, channel_id: &str, after: i64) -> ImksResult<Vec<Stored>> {
    let mut pages = Pages::default();
    loop {
        let before = pages.oldest.as_ref().map(|(id, _)| &**id);
        let page = page(socket, channel_id, before).await?;
        if !pages.add(page, after)? {
            return Ok(pages.newest_first.into_iter().rev().flatten().collect());
        }
    }
}

/// The pages of a history that were read so far.
#[derive(Default)]
struct Pages {
    newest_first: Vec<Vec<Stored>>,
    /// Id and number of the oldest message.
    oldest: Option<(String, i64)>,
}

impl Pages {
    /// Adds the messages of a page whose number is above `after`, and returns whether an earlier page is wanted.
    fn add(&mut self, page: Page, after: i64) -> ImksResult<bool> {
        let oldest = page.messages.first().map(|first| (first.id.clone(), first.seq));
        let is_wanted = page.has_more_before && oldest.as_ref().is_some_and(|(_, seq)| *seq > after);
        let leads_on = match (&self.oldest, &oldest) {
            (Some((_, before)), Some((_, now))) => now < before,
            _ => true,
        };
        if is_wanted && !leads_on {
            let source = std::io::Error::other("an earlier page has no earlier message");
            return Err(ImksError::Io { context: "reading the history".into(), source });
        }
        let wanted = page.messages.into_iter().filter(|message| message.seq > after);
        let stored =
            wanted.map(|it| Stored { seq: it.seq, body: it.body.chars().take(MARK_CHARS).collect() });
        self.newest_first.push(stored.collect());
        self.oldest = oldest;
        Ok(is_wanted)
    }
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
                    let context = text::line(&format!("the history was refused: {error}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(numbers: std::ops::Range<i64>, has_more_before: bool) -> Page {
        let message = |seq: i64| Message { id: seq.to_string(), seq, body: "run 0/1 ".repeat(1_000) };
        Page { messages: numbers.map(message).collect(), has_more_before }
    }

    #[test]
    fn pages_are_read_back_to_the_number_and_long_texts_are_not_kept() {
        let mut pages = Pages::default();
        assert!(pages.add(page(20..30, true), 5).unwrap());
        assert_eq!(pages.oldest.as_ref().unwrap().0, "20");
        assert!(pages.add(page(10..20, true), 5).unwrap());
        assert!(!pages.add(page(0..10, true), 5).unwrap(), "what is older is not wanted");
        let numbers: Vec<i64> = pages.newest_first.iter().rev().flatten().map(|stored| stored.seq).collect();
        assert_eq!(numbers, (6..30).collect::<Vec<_>>());
        assert!(pages.newest_first.iter().flatten().all(|stored| stored.body.len() == MARK_CHARS));
    }

    #[test]
    fn a_server_that_gives_the_same_page_for_ever_is_asked_once() {
        let mut pages = Pages::default();
        assert!(pages.add(page(20..30, true), 5).unwrap());
        assert!(pages.add(page(20..30, true), 5).is_err());
        let mut pages = Pages::default();
        assert!(!pages.add(page(0..0, true), 5).unwrap(), "nothing leads nowhere");
    }
}

//! The events `history` and `message:get`, which read earlier messages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, Reservation};
use super::ctx::Ctx;
use super::input::BoundedList;
use super::registry::{Large, Registry, Request};
use crate::models::message::MessageDetail;
use crate::models::message_page::{MessagePage, PAGE_LIMIT, Page, Position};
use crate::{ImksError, ImksResult};

const HISTORY: Request<History, MessagePage> = Request::new("history");
const GET: Request<Get, Got> = Request::new("message:get");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on_read(HISTORY, history).get("/channels/{channel_id}/messages");
    events.on_read(GET, get);
}

/// The payload of `history`.
#[derive(Debug, Deserialize, JsonSchema)]
struct History {
    channel_id: Uuid,
    #[serde(default)]
    before: Option<Uuid>,
    #[serde(default)]
    after: Option<Uuid>,
    #[serde(default)]
    around: Option<Uuid>,
    #[serde(default)]
    thread_id: Option<Uuid>,
    #[serde(default = "page_size")]
    #[schemars(range(min = 1, max = PAGE_LIMIT))]
    limit: u32,
}

impl Large for History {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::of_messages(self.limit as usize)
    }
}

async fn history(ctx: Ctx, room: Reservation, request: History) -> ImksResult<MessagePage> {
    let page = request.page()?;
    ctx.readable(request.channel_id).await?.page(&room, page).await
}

impl History {
    fn page(&self) -> ImksResult<Page> {
        let position = match (self.before, self.after, self.around) {
            (None, None, None) => Position::Latest,
            (Some(id), None, None) => Position::Before(id),
            (None, Some(id), None) => Position::After(id),
            (None, None, Some(id)) => Position::Around(id),
            _ => return Err(ImksError::InvalidPayload("Give one of before, after and around".into())),
        };
        if self.limit == 0 || self.limit > PAGE_LIMIT {
            return Err(ImksError::invalid("limit", format!("must be between 1 and {PAGE_LIMIT}")));
        }
        Ok(Page { position, thread_id: self.thread_id, limit: self.limit })
    }
}

fn page_size() -> u32 {
    PAGE_DEFAULT
}

/// The payload of `message:get`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Get {
    channel_id: Uuid,
    message_ids: BoundedList<Uuid, MESSAGES_MAX>,
}

/// The answer to `message:get`.
#[derive(Debug, Serialize, JsonSchema)]
struct Got {
    messages: Vec<MessageDetail>,
    /// Whether some messages did not fit, so that the client has to request them again.
    more: bool,
}

impl Large for Get {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::of_messages(self.message_ids.0.len())
    }
}

async fn get(ctx: Ctx, room: Reservation, request: Get) -> ImksResult<Got> {
    let channel = ctx.readable(request.channel_id).await?;
    let (messages, more) = channel.messages(&room, &request.message_ids.0).await?;
    Ok(Got { messages, more })
}

/// The most messages in one `message:get`.
const MESSAGES_MAX: usize = 100;
const PAGE_DEFAULT: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_position_and_a_size_within_bounds() {
        let id = "01909a00-0000-7000-8000-000000000001";
        let page = |rest: &str| {
            let request: History =
                serde_json::from_str(&format!(r#"{{"channel_id":"{id}"{rest}}}"#)).unwrap();
            request.page()
        };
        assert_eq!(page("").unwrap().limit, 50);
        assert_eq!(page(&format!(r#","before":"{id}","after":null"#)).unwrap().limit, 50);
        assert!(page(&format!(r#","before":"{id}","after":"{id}""#)).is_err());
        assert!(page(r#","limit":0"#).is_err() && page(r#","limit":101"#).is_err());
    }
}

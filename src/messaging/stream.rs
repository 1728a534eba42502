//! Streamed messages: the events `stream:append`, `stream:finish` and `stream:abort`, and the task that ends streams whose
//! author is silent.

use std::sync::Arc;

use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::channel::{Channel, Write};
use super::ctx::Ctx;
use super::parts::Messaging;
use super::push::Push;
use super::rates::PIECES_PER_SECOND;
use super::registry::{Registry, Request, Status};
use super::timed::timed;
use super::turn::Turn;
use super::{preview, ticks};
use crate::auth::Permission;
use crate::clock;
use crate::models::message::{AuthorInfo, MessageDetail};
use crate::models::message_stream::{
    AppendText, Appended, EndStream, SILENT_AT_ONCE, SilentStream, StreamText, StreamedMessage, silent,
};
use crate::models::message_stream_state::{STREAM_LEASE, Stream, StreamState};
use crate::{ImksError, ImksResult};

const APPEND: Request<Append, Stream> = Request::new("stream:append");
const FINISH: Request<End, Ended> = Request::new("stream:finish");
const ABORT: Request<End, Ended> = Request::new("stream:abort");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&Push::<Appended>::new("message:append"));
    events.advertise("stream_appends_per_second", PIECES_PER_SECOND);
    events.advertise("stream_lease_ms", STREAM_LEASE / 1_000);
    events.on_write(APPEND, append).post("/channels/{channel_id}/messages/{message_id}/stream", Status::Ok);
    events
        .on_write(FINISH, |ctx, turn, request| end(ctx, turn, request, StreamState::Finished))
        .post("/channels/{channel_id}/messages/{message_id}/stream/finish", Status::Ok);
    events
        .on_write(ABORT, |ctx, turn, request| end(ctx, turn, request, StreamState::Aborted))
        .post("/channels/{channel_id}/messages/{message_id}/stream/abort", Status::Ok);
}

/// The payload of `stream:append`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Append {
    channel_id: Uuid,
    message_id: Uuid,
    /// The number of characters before the text.
    offset: usize,
    /// What to add; empty to only renew the lease.
    text: StreamText,
}

async fn append(ctx: Ctx, turn: Turn, request: Append) -> ImksResult<Stream> {
    let Append { channel_id, message_id, offset, text } = request;
    ctx.count_piece(message_id)?;
    let (channel, target) = permitted(&ctx, channel_id, message_id).await?;
    channel.submit(turn, AppendText { target, offset, text })?.await
}

/// The payload of `stream:finish` and `stream:abort`.
#[derive(Debug, Deserialize, JsonSchema)]
struct End {
    channel_id: Uuid,
    message_id: Uuid,
    /// The number of characters that the text must have.
    #[serde(default)]
    offset: Option<usize>,
}

/// The answer to `stream:finish` and `stream:abort`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StreamEnded")]
struct Ended {
    message: Arc<MessageDetail>,
    rev: i64,
}

async fn end(ctx: Ctx, turn: Turn, request: End, state: StreamState) -> ImksResult<Ended> {
    let End { channel_id, message_id, offset } = request;
    ctx.count_send(channel_id)?;
    let (channel, target) = permitted(&ctx, channel_id, message_id).await?;
    let message = channel.submit(turn, EndStream { target, state, offset, if_over: false })?.await?;
    preview::request(&ctx, &message);
    Ok(Ended { rev: message.rev, message })
}

/// Returns a proof that the caller may write in the channel, or at least in its threads.
async fn permitted(ctx: &Ctx, channel: Uuid, id: Uuid) -> ImksResult<(Channel<Write>, StreamedMessage)> {
    let target = |only_in_threads| StreamedMessage { id, only_in_threads, kind: None };
    match ctx.writable(channel, Permission::SendMessages).await {
        Err(ImksError::Forbidden(missing)) => {
            let in_threads = ctx.writable(channel, Permission::SendInThreads).await;
            let channel = in_threads.map_err(|error| match error {
                ImksError::Forbidden(_) => ImksError::Forbidden(missing),
                error => error,
            })?;
            Ok((channel, target(true)))
        }
        channel => Ok((channel?, target(false))),
    }
}

/// Ends streams whose author is silent, until `stop`. Several nodes may do so: only the first one changes anything.
pub(super) async fn interrupt_silent(messaging: Messaging, stop: CancellationToken) {
    ticks::repeat(LOOK_EVERY, &stop, || interrupt_some(&messaging)).await;
}

/// Returns whether there may be more.
async fn interrupt_some(messaging: &Messaging) -> bool {
    let found = match timed("streams_silent", silent(messaging.db(), clock::now_micros())).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "streams of silent authors end late");
            return false;
        }
    };
    let is_full = i64::try_from(found.len()).is_ok_and(|found| found >= SILENT_AT_ONCE);
    let ends = join_all(found.into_iter().map(|stream| interrupt(messaging, stream))).await;
    // One that was ended meanwhile, with its message or by its author, needs nothing more.
    let is_failure = |error: &ImksError| !matches!(error, ImksError::NotFound(_) | ImksError::MessageDeleted);
    match ends.into_iter().filter_map(Result::err).find(is_failure) {
        None => is_full,
        Some(error) => {
            tracing::warn!(%error, "streams of silent authors end late");
            false
        }
    }
}

async fn interrupt(messaging: &Messaging, stream: SilentStream) -> ImksResult<()> {
    let actor = AuthorInfo { id: stream.author_id, username: stream.author_username.into() };
    let target = StreamedMessage { id: stream.message_id, only_in_threads: false, kind: None };
    let end = EndStream { target, state: StreamState::Interrupted, offset: None, if_over: true };
    messaging.submit_as(stream.channel_id, actor, end)?.await.map(drop)
}

/// How often the server looks for streams whose author is silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);

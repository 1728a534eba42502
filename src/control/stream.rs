//! The calls that add text to streamed messages, and end them.

use super::Ctx;
use super::input::id;
use super::messages::author;
use crate::models::message::AuthorInfo;
use crate::models::message_stream::{AppendText, EndStream, StreamText, StreamedMessage};
use crate::models::message_stream_state::StreamState;
use crate::pb::control::{
    AppendTextRequest, AppendTextResponse, EndStreamRequest, EndStreamResponse, Identity,
};
use crate::{ImksError, ImksResult};

/// `AppendText`. A repeat changes nothing.
pub(super) async fn append(ctx: Ctx, request: AppendTextRequest) -> ImksResult<AppendTextResponse> {
    let (author, target) = named(&ctx, request.identity.as_ref(), &request.message_id)?;
    let text = StreamText::new(request.text).map_err(|reason| ImksError::invalid("text", reason))?;
    let piece = AppendText { target, offset: whole(request.offset), text };
    let channel = ctx.backend().channel(id("channel_id", &request.channel_id)?).await?;
    ctx.backend().count_piece(author.id, target.id)?;
    let stream = channel.submit(author, piece)?.await?;
    Ok(AppendTextResponse { offset: on_wire(stream.offset) })
}

/// `EndStream`. A repeat changes nothing.
pub(super) async fn end(ctx: Ctx, request: EndStreamRequest) -> ImksResult<EndStreamResponse> {
    let (author, target) = named(&ctx, request.identity.as_ref(), &request.message_id)?;
    let state = if request.aborted { StreamState::Aborted } else { StreamState::Finished };
    let end = EndStream { target, state, offset: request.offset.map(whole), if_over: false };
    let channel = ctx.backend().channel(id("channel_id", &request.channel_id)?).await?;
    let message = channel.submit(author, end)?.await?;
    let offset = message.stream.map(|stream| on_wire(stream.offset)).unwrap_or_default();
    Ok(EndStreamResponse { offset, rev: message.rev })
}

/// Returns who the message is from, and the message.
fn named(ctx: &Ctx, identity: Option<&Identity>, message: &str) -> ImksResult<(AuthorInfo, StreamedMessage)> {
    let (author, kind) = author(ctx.caller(), identity)?;
    let id = id("message_id", message)?;
    Ok((author, StreamedMessage { id, only_in_threads: false, kind: Some(kind) }))
}

fn whole(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn on_wire(offset: usize) -> u64 {
    u64::try_from(offset).unwrap_or(u64::MAX)
}

//! The field `forward_of` of `message:send`: the message that is forwarded, which the sender must be able to read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES};
use super::ctx::Ctx;
use crate::models::message::{ContentType, Forward};
use crate::models::message_forward::copy_of;
use crate::models::text::E2EE_BYTES_MAX;
use crate::{ImksError, ImksResult};

/// The field `forward_of` of `message:send`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub(super) struct ForwardOf {
    channel_id: Uuid,
    pub(super) message_id: Uuid,
}

impl ForwardOf {
    /// Returns a copy of the message to forward.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a message that the sender cannot read, [`ImksError::MessageDeleted`], and
    /// [`ImksError::InvalidInput`] for one that is encrypted for its channel.
    pub(super) async fn copy(self, ctx: &Ctx) -> ImksResult<Box<Forward>> {
        let source = ctx.readable(self.channel_id).await?;
        let room = ctx.reserve(AnswerSize::up_to(E2EE_BYTES_MAX * COPIES)).await?;
        let (found, _) = source.messages(&room, &[self.message_id]).await?;
        let message = found.into_iter().next().ok_or(ImksError::NotFound("message"))?;
        if message.deleted_at.is_some() {
            return Err(ImksError::MessageDeleted);
        }
        if message.content_type == ContentType::E2ee {
            return Err(ImksError::invalid("forward_of", "is end-to-end encrypted"));
        }
        let copy = copy_of(message);
        match copy.deleted_at {
            Some(_) => Err(ImksError::MessageDeleted),
            None => Ok(copy),
        }
    }
}

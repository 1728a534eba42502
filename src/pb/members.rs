//! The members of a channel, page by page.

use uuid::Uuid;

use super::client::{CoreClient, PAGE_SIZE};
use super::parse::id;
use super::v1;
use super::v1::member_service_client::MemberServiceClient;
use crate::error::ImksResult;

impl CoreClient {
    /// Returns up to `limit` members of a channel from a page on, the first one if `cursor` is empty, and where the next
    /// one begins. Always asks the core.
    ///
    /// # Errors
    /// An error with the code [`Code::InvalidInput`](crate::error::Code::InvalidInput) for a cursor that is not the
    /// core's; `Unavailable` or `Timeout`.
    pub async fn channel_members(
        &self,
        channel: Uuid,
        limit: u32,
        cursor: String,
    ) -> ImksResult<(Vec<Uuid>, Option<String>)> {
        let bytes_max = self.answer_bytes_max();
        let request = v1::ListChannelMembersRequest {
            channel_id: channel.to_string(),
            page_size: limit,
            page_token: cursor,
        };
        let page = self
            .call("list_channel_members", request, |channel, request| async move {
                let client = MemberServiceClient::new(channel);
                client.max_decoding_message_size(bytes_max).list_channel_members(request).await
            })
            .await?;
        let members = page.memberships.iter().map(|member| id(&member.user_id)).collect::<ImksResult<_>>()?;
        Ok((members, Some(page.next_page_token).filter(|next| !next.is_empty())))
    }

    /// Returns the number of members of a channel, counted up to `limit`. Always asks the core.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn count_members(&self, channel: Uuid, limit: usize) -> ImksResult<usize> {
        let (mut count, mut cursor) = (0, String::new());
        loop {
            let size = u32::try_from(limit - count).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
            let (members, next) = self.channel_members(channel, size, cursor).await?;
            count += members.len();
            match next {
                Some(next) if !members.is_empty() && count < limit => cursor = next,
                _ => return Ok(count.min(limit)),
            }
        }
    }
}

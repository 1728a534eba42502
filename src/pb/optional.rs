//! The calls of services that a core may leave out: incoming webhooks, custom emoji, notifications.

use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::client::{CoreClient, parse_all};
use super::types::{CustomEmoji, Enqueued, IncomingWebhook, Notification};
use super::v1;
use super::v1::emoji_service_client::EmojiServiceClient;
use super::v1::push_service_client::PushServiceClient;
use super::v1::webhook_service_client::WebhookServiceClient;
use crate::error::ImksResult;

/// Runs one call. Evaluates to the answer, which is `None` if the core does not have the service, or returns the
/// error from the enclosing function.
macro_rules! call {
    ($core:expr, $client:ident::$method:ident($request:expr)) => {{
        let bytes_max = $core.answer_bytes_max();
        $core
            .call(stringify!($method), $request, |channel, request| async move {
                let mut client = $client::new(channel).max_decoding_message_size(bytes_max);
                if_there(client.$method(request).await)
            })
            .await?
    }};
}

fn if_there<T>(answer: Result<Response<T>, Status>) -> Result<Response<Option<T>>, Status> {
    match answer {
        Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(None)),
        answer => answer.map(|answer| answer.map(Some)),
    }
}

impl CoreClient {
    /// Returns the incoming webhook that a token stands for, if there is one.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn incoming_webhook(&self, token: &str) -> ImksResult<Option<IncomingWebhook>> {
        let request = v1::ResolveRequest { token: token.to_owned() };
        let answer = call!(self, WebhookServiceClient::resolve(request));
        answer.and_then(|answer| answer.webhook).map(TryInto::try_into).transpose()
    }

    /// Returns a custom emoji, if there is one with this id.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn emoji(&self, id: Uuid) -> ImksResult<Option<CustomEmoji>> {
        let request = v1::GetRequest { emoji_id: id.to_string() };
        let answer = call!(self, EmojiServiceClient::get(request));
        answer.and_then(|answer| answer.emoji).map(TryInto::try_into).transpose()
    }

    /// Returns the custom emoji of a workspace, at most [`EMOJI_MAX`], and their etag; `None` if they have not
    /// changed since `etag`.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn emoji_of(
        &self,
        workspace: Uuid,
        etag: &str,
    ) -> ImksResult<Option<(Vec<CustomEmoji>, String)>> {
        let request = v1::ListWorkspaceRequest { workspace_id: workspace.to_string(), etag: etag.to_owned() };
        let answer = call!(self, EmojiServiceClient::list_workspace(request)).unwrap_or_default();
        if answer.not_modified {
            return Ok(None);
        }
        let emoji = parse_all(answer.emoji.into_iter().take(EMOJI_MAX).collect())?;
        let etag = if answer.etag.len() <= ETAG_BYTES_MAX { answer.etag } else { String::new() };
        Ok(Some((emoji, etag)))
    }

    /// Hands notifications for absent users over to the core.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn enqueue(&self, notifications: &[Notification]) -> ImksResult<Enqueued> {
        let notifications = notifications.iter().map(Into::into).collect();
        let answer = call!(self, PushServiceClient::enqueue(v1::EnqueueRequest { notifications }));
        Ok(if answer.is_some() { Enqueued::Taken } else { Enqueued::Unwanted })
    }
}

/// The most custom emoji that are taken from one answer.
const EMOJI_MAX: usize = 1_000;
/// The longest etag of a list of emoji, in bytes; a longer one is not used.
const ETAG_BYTES_MAX: usize = 128;

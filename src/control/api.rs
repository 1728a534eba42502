//! The operations over HTTP, below [`PREFIX`]: `http` mounts them.

use std::sync::Arc;

use tokio::time::Instant;

use super::operation::{BODY_BYTES_MAX, KEY_FIELD};
use super::operations::OPERATIONS;
use super::{Ctx, ephemeral, metrics};
use crate::ImksResult;
use crate::contract::Contract;
use crate::envelope::RequestId;
use crate::messaging::api::{Answer, Call, Payload};

pub use super::Control;
pub use super::operation::Operation;
pub use crate::contract::BACK_ENDS_PREFIX as PREFIX;

/// What a connection tells of its peer. The internal listener attaches it to every request.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The names in the certificate that the peer has shown.
    pub names: Arc<[Box<str>]>,
    /// Whether the connection came in on the internal listener.
    pub is_internal: bool,
}

/// What is known of a request before its body is read.
#[derive(Debug)]
pub struct Head {
    /// The header `Authorization`.
    pub authorization: ImksResult<Option<String>>,
    /// The peer that sent the request.
    pub peer: Peer,
    /// Whether a page in a browser has sent it: it has the header `Origin`.
    pub is_page: bool,
}

impl Control {
    /// Returns all operations.
    pub fn operations() -> &'static [Operation] {
        &OPERATIONS
    }

    /// Tells programs of all operations, and of the events that only back ends cause.
    pub fn describe(contract: &mut Contract) {
        OPERATIONS.iter().for_each(|operation| operation.tell(contract));
        ephemeral::describe(contract);
    }

    /// Answers a request to the route of an operation. It is read, with its body, once it is known that the caller
    /// may make it.
    pub async fn answer(
        &self,
        operation: &Operation,
        head: Head,
        request: impl Future<Output = ImksResult<Call>>,
    ) -> Answer {
        answer(operation, self.admit(operation, head, request)).await
    }

    async fn admit(
        &self,
        operation: &Operation,
        head: Head,
        request: impl Future<Output = ImksResult<Call>>,
    ) -> ImksResult<(Ctx, Payload<'static>)> {
        let caller = self.gate().admit(head, operation.scope).await?;
        let mut call = request.await?;
        if WITHOUT_KEY.contains(&operation.name) {
            call.idempotency_key = None;
        }
        let payload = call.payload(operation.method, KEY_FIELD)?;
        Ok((Ctx { control: self.clone(), caller }, payload))
    }
}

/// Answers a request that is let in, with its context and payload, or refused.
pub(super) async fn answer<C>(
    operation: &Operation<C>,
    admission: impl Future<Output = ImksResult<(C, Payload<'static>)>>,
) -> Answer {
    let (started, request_id) = (Instant::now(), RequestId::next());
    match admission.await {
        Ok((ctx, payload)) => (operation.http)(ctx, payload).await,
        Err(error) => {
            metrics::note(operation.name, started, Some(&error), &request_id);
            Answer::failure(&error, &request_id)
        }
    }
}

/// The operations that change something and whose requests have no such field: the header means nothing to them.
pub(super) const WITHOUT_KEY: [&str; 6] = [
    "SendMessages",
    "AppendText",
    "EndStream",
    "InvalidatePermissions",
    "SyncMembership",
    "NotifyKeyRotation",
];
/// The largest body of a request, in bytes.
pub const REQUEST_BYTES_MAX: usize = BODY_BYTES_MAX;

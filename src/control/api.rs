//! The operations over HTTP, below [`PREFIX`]: `http` mounts them.

use std::sync::Arc;

use super::Ctx;
use super::operation::BODY_BYTES_MAX;
use super::operations::OPERATIONS;
use crate::ImksResult;
use crate::messaging::api::{Answer, Call, Payload};

pub use super::Control;
pub use super::operation::Operation;

/// What a connection tells of its peer. The internal listener attaches it to every request.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The names in the certificate that the peer has shown.
    pub names: Arc<[Box<str>]>,
    /// Whether the connection came in on the internal listener.
    pub is_internal: bool,
}

impl Control {
    /// Returns all operations.
    pub fn operations() -> &'static [Operation] {
        &OPERATIONS
    }

    /// Answers a request to the route of an operation.
    pub async fn answer(&self, operation: &Operation, call: &Call, peer: &Peer) -> Answer {
        match self.admit(operation, call, peer).await {
            Ok((ctx, payload)) => (operation.http)(ctx, payload).await,
            Err(error) => Answer::refusal(&error),
        }
    }

    async fn admit(
        &self,
        operation: &Operation,
        call: &Call,
        peer: &Peer,
    ) -> ImksResult<(Ctx, Payload<'static>)> {
        let caller = self.authenticate(call.bearer(), peer).await?;
        caller.require(operation.scope)?;
        let payload = call.payload(operation.method, "request_id")?;
        Ok((Ctx { control: self.clone(), caller }, payload))
    }
}

/// The prefix of every path of the API for back ends.
pub const PREFIX: &str = "/api/v1/admin";
/// The largest body of a request, in bytes.
pub const REQUEST_BYTES_MAX: usize = BODY_BYTES_MAX;

//! The operations over gRPC: the service `imks.v1.ControlService`.

use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::api::Peer;
use super::operation::{Never, Operation, OverGrpc, refuse};
use super::operations::OPERATIONS;
use super::{Control, Ctx};
use crate::messaging::api::bearer;
use crate::{ImksError, ImksResult};

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlService(Control);

impl ControlService {
    /// Creates the service of these operations.
    pub fn new(control: Control) -> Self {
        Self(control)
    }
}

impl NamedService for ControlService {
    const NAME: &'static str = "imks.v1.ControlService";
}

impl Service<http::Request<Body>> for ControlService {
    type Response = http::Response<Body>;
    type Error = Never;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Never>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Never>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some((operation, call)) = operation_of(request.uri().path()) else {
            let status = tonic::Status::unimplemented("this version does not serve this call");
            return Box::pin(ready(Ok(status.into_http())));
        };
        let control = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            match admit(control, operation, &head).await {
                Ok(ctx) => Ok(call(ctx, http::Request::from_parts(head, body)).await),
                Err(error) => Ok(refuse(&error)),
            }
        })
    }
}

fn operation_of(path: &str) -> Option<(&'static Operation, &'static OverGrpc)> {
    let name = path.strip_prefix('/')?.strip_prefix(ControlService::NAME)?.strip_prefix('/')?;
    let operation = OPERATIONS.iter().find(|operation| operation.name == name)?;
    Some((operation, &operation.grpc.as_ref()?.call))
}

/// Checks the caller before the request is read.
async fn admit(control: Control, operation: &Operation, head: &http::request::Parts) -> ImksResult<Ctx> {
    let peer = head.extensions.get::<Peer>().cloned().unwrap_or_default();
    let header = head.headers.get(header::AUTHORIZATION);
    let header = header.map(|value| value.to_str().map_err(|_| ImksError::Auth("The key is not text")));
    let key = header.transpose()?.and_then(bearer);
    let caller = control.authenticate(key, &peer).await?;
    caller.require(operation.scope)?;
    Ok(Ctx { control, caller })
}

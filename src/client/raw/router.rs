//! Handlers of JSON messages by what their `type` says.

use std::collections::HashMap;
use std::fmt;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::error::{ClientError, ClientResult};
use crate::error::ImksError;

/// Hands JSON messages such as `{"type":"join","room":"lobby"}` to the handler of their type. `C` is what the handlers
/// know beside the message: who has sent it, and how to answer.
///
/// ```
/// use imks::client::raw::{Routed, Router};
///
/// #[derive(serde::Deserialize)]
/// struct Join {
///     room: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> imks::client::ClientResult<()> {
/// let router = Router::new().on("join", |who: u64, join: Join| async move { println!("{who} is in {}", join.room) });
/// assert_eq!(router.route(7, r#"{"type":"join","room":"lobby"}"#).await?, Routed::Handled);
/// assert_eq!(router.route(7, r#"{"type":"dance"}"#).await?, Routed::Unknown("dance".into()));
/// assert!(router.route(7, r#"{"type":"join"}"#).await.is_err());
/// # Ok(()) }
/// ```
pub struct Router<C> {
    handlers: HashMap<Box<str>, Box<Handler<C>>>,
}

type Handler<C> = dyn Fn(C, &str) -> ClientResult<BoxFuture<'static, ()>> + Send + Sync;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// Its handler is done with it.
    Handled,
    /// There is no handler for its type.
    Unknown(String),
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
}

impl<C: Send + 'static> Router<C> {
    /// Creates a router without handlers.
    pub fn new() -> Self {
        Self { handlers: HashMap::new() }
    }

    /// Handles messages of a type. A second handler for the same type takes the place of the first.
    #[must_use]
    pub fn on<T, F, R>(mut self, kind: &str, handle: F) -> Self
    where
        T: DeserializeOwned,
        F: Fn(C, T) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let handler = move |context: C, text: &str| -> ClientResult<BoxFuture<'static, ()>> {
            Ok(Box::pin(handle(context, read(text)?)))
        };
        self.handlers.insert(kind.into(), Box::new(handler));
        self
    }

    /// Hands a message to its handler, and waits until that is done.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for a text that is no JSON object with a `type`, or not what the handler of its type
    /// reads.
    pub async fn route(&self, context: C, text: &str) -> ClientResult<Routed> {
        let Typed { kind } = read(text)?;
        let Some(handler) = self.handlers.get(&*kind) else { return Ok(Routed::Unknown(kind)) };
        handler(context, text)?.await;
        Ok(Routed::Handled)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> ClientResult<T> {
    serde_json::from_str(text)
        .map_err(|error| ClientError::invalid(ImksError::InvalidPayload(error.to_string())))
}

impl<C: Send + 'static> Default for Router<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for Router<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.handlers.keys()).finish()
    }
}

//! Handlers with typed arguments and results.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::builder::NamespaceBuilder;
use super::handlers::Ack;
use super::refusal::EventError;
use super::socket::Socket;
use crate::error::ImksResult;
use crate::socket::codec::packet::Args;

/// The result of a typed handler. It becomes the ack, if the client wants one.
pub trait IntoAck {
    /// Sends the ack.
    ///
    /// # Errors
    /// Serialization errors.
    fn into_ack(self, ack: Ack) -> ImksResult<()>;
}

/// An ack with one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<T>(pub T);

impl<T: Serialize> IntoAck for Reply<T> {
    fn into_ack(self, ack: Ack) -> ImksResult<()> {
        ack.send(&self.0)
    }
}

/// Sends an ack without arguments.
impl IntoAck for () {
    fn into_ack(self, ack: Ack) -> ImksResult<()> {
        ack.send_args(&())
    }
}

/// Sends the arguments unchanged.
impl IntoAck for Args {
    fn into_ack(self, ack: Ack) -> ImksResult<()> {
        ack.send_args(&self)
    }
}

/// Sends an error as `{"error":{"message":…,"data":…}}`.
impl<T: IntoAck, E: Into<EventError>> IntoAck for Result<T, E> {
    fn into_ack(self, ack: Ack) -> ImksResult<()> {
        match self {
            Ok(answer) => answer.into_ack(ack),
            Err(error) => ack.refuse(&error.into()),
        }
    }
}

impl NamespaceBuilder {
    /// Sets a handler with typed arguments: a tuple gets all arguments, any other type the only one.
    ///
    /// What the handler returns is the ack. If the arguments have another shape, the handler does not run and
    /// the client gets an error.
    ///
    /// ```
    /// # use imks::socket::{Reply, Server, Socket};
    /// # fn main() -> imks::ImksResult<()> {
    /// let server = Server::builder(Default::default())
    ///     .namespace("/", |ns| {
    ///         ns.on_typed("add", |_: Socket, (a, b): (i64, i64)| async move { Reply(a + b) });
    ///         ns.on_typed("join", |socket: Socket, room: String| async move { socket.join(&room) });
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn on_typed<T, F, Fut, R>(&mut self, event: &str, handler: F) -> &mut Self
    where
        T: DeserializeOwned,
        F: Fn(Socket, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoAck,
    {
        self.on(event, move |mut event| {
            let ack = event.take_ack();
            let work = event.args().extract().map(|args| handler(event.socket().clone(), args));
            async move {
                let outcome = match work {
                    Ok(work) => answer(ack, work.await),
                    Err(error) => {
                        tracing::debug!(socket_sid = event.socket().id(), event = event.logged_name(), %error, "not for this handler");
                        answer(ack, Err::<(), _>(error))
                    }
                };
                if let Err(error) = outcome {
                    tracing::warn!(%error, event = event.logged_name(), "answer not sent");
                }
            }
        })
    }
}

fn answer(ack: Option<Ack>, value: impl IntoAck) -> ImksResult<()> {
    ack.map_or(Ok(()), |ack| value.into_ack(ack))
}

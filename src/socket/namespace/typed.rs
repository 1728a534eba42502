//! Handlers with typed arguments and results.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::builder::NamespaceBuilder;
use super::handlers::{Ack, Event};
use super::observers;
use super::refusal::EventError;
use super::socket::Socket;
use crate::error::{ImksError, ImksResult};
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
    /// What the handler returns is the ack. If the arguments are others, the handler does not run: the client gets an
    /// error as the ack, the hook of [`NamespaceBuilder::on_event_refused`] is called, and the log says so, as a
    /// warning for the first such event of each handler.
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
        let warned = AtomicBool::new(false);
        self.on(event, move |mut event| {
            let ack = event.take_ack();
            let args = event.args().extract().map_err(|error| mismatch(&event, &error, &warned));
            let work = args.map(|args| handler(event.socket().clone(), args));
            async move {
                let outcome = match work {
                    Ok(work) => answer(ack, work.await),
                    Err(refusal) => answer(ack, Err::<(), _>(refusal)),
                };
                if let Err(error) = outcome {
                    tracing::warn!(%error, event = &*event.logged_name(), "answer not sent");
                }
            }
        })
    }
}

/// Reports that the arguments of an event are not those of its handler. Clients choose arguments, so only the first
/// report of a handler is a warning.
fn mismatch(event: &Event, error: &ImksError, warned: &AtomicBool) -> EventError {
    let text = match error {
        ImksError::Json(error) => error.to_string(),
        other => other.client_message(),
    };
    let (socket, namespace) = (event.socket(), event.socket().namespace());
    // The log gets what the handler takes, never what the client sent.
    let reason = expectation(&text).unwrap_or("they cannot be read");
    match warned.swap(true, Ordering::Relaxed) {
        false => tracing::warn!(
            socket_sid = socket.id(),
            namespace = namespace.path(),
            event = &*event.logged_name(),
            reason,
            "the arguments of an event do not fit its handler; further ones are logged at debug"
        ),
        true => tracing::debug!(
            socket_sid = socket.id(),
            event = &*event.logged_name(),
            reason,
            "the arguments of an event do not fit its handler"
        ),
    }
    let told: String = expectation(&text).unwrap_or(&text).chars().take(REASON_CHARS_MAX).collect();
    let refusal = EventError::new(format!("wrong arguments: {told}"));
    observers::refuse(namespace, socket, &refusal);
    refusal
}

/// Returns the part of an error that names what was expected, without the value that came instead and without its
/// position; `None` if the text is that of a type's own check.
fn expectation(text: &str) -> Option<&str> {
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    if let Some((value, _)) = text.rsplit_once(", expected ") {
        return text.get(value.len() + ", ".len()..);
    }
    let shape = ["missing field", "duplicate field", "an argument is missing", "more arguments than"];
    shape.iter().any(|start| text.starts_with(start)).then_some(text)
}

/// The maximum number of characters of the reason that a client gets for arguments that do not fit.
const REASON_CHARS_MAX: usize = 200;

fn answer(ack: Option<Ack>, value: impl IntoAck) -> ImksResult<()> {
    ack.map_or(Ok(()), |ack| value.into_ack(ack))
}

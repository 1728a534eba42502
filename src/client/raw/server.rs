//! A small server of WebSockets without Socket.IO, for tests, tools and embedded uses. It has no TLS.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tungstenite::handshake::server::{ErrorResponse, Request};

use super::connection::{Carrier, RawConnection};
use super::dial::limits;
use crate::client::error::{ClientError, ClientResult};

/// A server that listens. Dropping it stops that; connections that were accepted stay.
pub struct RawServer {
    address: SocketAddr,
    accepted: mpsc::Receiver<(RawConnection, SocketAddr)>,
    _listening: AbortOnDropHandle<()>,
}

/// The settings of a [`RawServer`].
#[derive(Debug, Clone)]
#[must_use = "nothing listens before `bind`"]
pub struct RawServerBuilder {
    connections_max: usize,
    message_bytes_max: usize,
    handshake_timeout: Duration,
    protocols: Vec<String>,
}

impl Default for RawServerBuilder {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            protocols: Vec::new(),
        }
    }
}

impl RawServerBuilder {
    /// Sets how many connections may be open. One more is answered with 503. The default is 1,000.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Sets the size of the largest message that is taken. A larger one ends its connection. The default is 1 MiB.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Sets how long a handshake may take. The default is 10 seconds.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Takes a subprotocol, if a client offers it. Where it offers several, the one that was named first here is chosen.
    pub fn protocol(mut self, name: &str) -> Self {
        self.protocols.push(name.to_owned());
        self
    }

    /// Starts to listen, at once: what comes before the first call of [`RawServer::accept`] is not lost. Port 0 is a free
    /// one.
    ///
    /// # Errors
    /// [`ClientError::ConnectionFailed`] if the address cannot be bound.
    pub async fn bind(self, address: impl Into<SocketAddr>) -> ClientResult<RawServer> {
        let failed = |error| ClientError::connect("websocket", error);
        let listener = TcpListener::bind(address.into()).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (say, accepted) = mpsc::channel(ACCEPTED_MAX);
        let listening = AbortOnDropHandle::new(TaskTracker::new().spawn(listen(listener, self, say)));
        Ok(RawServer { address, accepted, _listening: listening })
    }
}

impl RawServer {
    /// Returns the default settings.
    pub fn builder() -> RawServerBuilder {
        RawServerBuilder::default()
    }

    /// Starts to listen with the default settings.
    ///
    /// # Errors
    /// Those of [`RawServerBuilder::bind`].
    pub async fn bind(address: impl Into<SocketAddr>) -> ClientResult<Self> {
        Self::builder().bind(address).await
    }

    /// Waits for the next client, whose handshake is done, and returns its address too. `None` means that the server
    /// cannot listen any more.
    pub async fn accept(&mut self) -> Option<(RawConnection, SocketAddr)> {
        self.accepted.recv().await
    }

    /// Returns the address on which the server listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Debug for RawServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RawServer({})", self.address)
    }
}

type Accepted = mpsc::Sender<(RawConnection, SocketAddr)>;

/// Shakes hands with everybody who comes, each in a task, so that a slow one holds up nobody.
async fn listen(listener: TcpListener, settings: RawServerBuilder, accepted: Accepted) {
    let (settings, tasks) = (Arc::new(settings), TaskTracker::new());
    let room = Arc::new(Semaphore::new(settings.connections_max));
    // Refusals take room too, but not that of connections.
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    while !accepted.is_closed() {
        let (stream, address) = match listener.accept().await {
            Ok(came) => came,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let place = room.clone().try_acquire_owned().ok();
        let refusing = refusals.clone().try_acquire_owned().ok().filter(|_| place.is_none());
        if place.is_none() && refusing.is_none() {
            continue;
        }
        let (settings, accepted) = (settings.clone(), accepted.clone());
        tasks.spawn(async move {
            let shaking = shake_hands(stream, &settings, place);
            if let Ok(Some(connection)) = timeout(settings.handshake_timeout, Box::pin(shaking)).await {
                // Nobody accepts any more where this fails.
                let _ = accepted.send((connection, address)).await;
            }
            drop(refusing);
        });
    }
}

async fn shake_hands(
    stream: TcpStream,
    settings: &RawServerBuilder,
    place: Option<OwnedSemaphorePermit>,
) -> Option<RawConnection> {
    stream.set_nodelay(true).ok()?;
    let mut protocol = None;
    let is_full = place.is_none();
    #[expect(clippy::result_large_err, reason = "the library wants it")]
    let decide = |request: &Request, mut answer: Response<()>| -> Result<Response<()>, ErrorResponse> {
        if is_full {
            return Err(busy());
        }
        protocol = choose(&settings.protocols, request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL));
        if let Some(value) = protocol.as_deref().and_then(|name| HeaderValue::from_str(name).ok()) {
            answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        Ok(answer)
    };
    let io: Box<dyn Carrier> = Box::new(stream);
    let config = Some(limits(settings.message_bytes_max));
    let stream = accept_hdr_async_with_config(io, decide, config).await.ok()?;
    Some(RawConnection::new(stream, protocol).with_place(place?))
}

/// Returns the first of our subprotocols that a client offers.
fn choose<'a>(ours: &[String], offered: impl IntoIterator<Item = &'a HeaderValue>) -> Option<String> {
    let offered: Vec<&str> = offered.into_iter().filter_map(|value| value.to_str().ok()).collect();
    let mut offers = ours.iter().filter(|name| {
        offered.iter().flat_map(|list| list.split(',')).any(|offer| offer.trim() == name.as_str())
    });
    offers.next().cloned()
}

fn busy() -> ErrorResponse {
    let mut answer = Response::new(Some("too many connections".to_owned()));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

/// The maximum number of open connections by default.
const CONNECTIONS_MAX: usize = 1_000;

/// The size of the largest message from a client by default.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// How long a handshake may take by default.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of connections that wait to be accepted. Further ones wait with their handshake done.
const ACCEPTED_MAX: usize = 64;

/// The maximum number of clients that are told at the same time that there is no room. Further ones are hung up on.
const REFUSALS_MAX: usize = 64;

/// The pause after a connection could not be accepted, because the system has no more files.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_first_subprotocol_that_is_offered_is_chosen() {
        let ours = ["chat".to_owned(), "binary".to_owned()];
        let offer = |lists: &[&'static str]| {
            let values: Vec<HeaderValue> = lists.iter().map(|list| HeaderValue::from_static(list)).collect();
            choose(&ours, &values)
        };
        assert_eq!(offer(&["binary, chat"]).as_deref(), Some("chat"));
        assert_eq!(offer(&["other", " binary"]).as_deref(), Some("binary"));
        assert_eq!((offer(&["chatter"]), offer(&[])), (None, None));
    }
}

//! One WebSocket, with what others want to send on it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message as Frame};

use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::error::Cause;

/// A message, or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// A question for a sign of life, with up to 125 bytes. It was answered already.
    Ping(Bytes),
    /// The answer to a ping, with its bytes.
    Pong(Bytes),
    /// The end, with its code (RFC 6455 section 7.4; 1005 if there was none) and its reason. It was answered already.
    Close(u16, String),
}

impl Message {
    /// Returns its frame.
    ///
    /// # Errors
    /// [`ClientError::Config`] if the other side would have to end the connection for it.
    pub(super) fn into_frame(self) -> ClientResult<Frame> {
        Ok(match self {
            Self::Text(text) => Frame::text(text),
            Self::Binary(bytes) => Frame::Binary(bytes),
            Self::Ping(bytes) => Frame::Ping(control(bytes)?),
            Self::Pong(bytes) => Frame::Pong(control(bytes)?),
            Self::Close(code, reason) => Frame::Close(Some(close_frame(code, reason)?)),
        })
    }

    fn from_frame(frame: Frame) -> Option<Self> {
        Some(match frame {
            Frame::Text(text) => Self::Text(text.to_string()),
            Frame::Binary(bytes) => Self::Binary(bytes),
            Frame::Ping(bytes) => Self::Ping(bytes),
            Frame::Pong(bytes) => Self::Pong(bytes),
            Frame::Close(None) => Self::Close(NO_STATUS, String::new()),
            Frame::Close(Some(frame)) => Self::Close(frame.code.into(), frame.reason.to_string()),
            Frame::Frame(_) => return None,
        })
    }
}

/// What carries the bytes of a WebSocket.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// An open WebSocket. Dropping it hangs up.
pub struct RawConnection {
    stream: WebSocketStream<Box<dyn Carrier>>,
    sender: RawSender,
    outgoing: mpsc::Receiver<Frame>,
    /// A frame that the network has not taken yet.
    pending: Option<Frame>,
    /// The pings that were read since the network last took everything.
    unanswered: usize,
    protocol: Option<String>,
    is_open: bool,
    heartbeat: Option<Heartbeat>,
    /// Its place among the connections of a server, while it is there.
    place: Option<OwnedSemaphorePermit>,
}

impl RawConnection {
    pub(super) fn new(stream: WebSocketStream<Box<dyn Carrier>>, protocol: Option<String>) -> Self {
        let (say, outgoing) = mpsc::channel(OUTGOING_MESSAGES_MAX);
        let sender = RawSender(say);
        Self {
            stream,
            sender,
            outgoing,
            pending: None,
            unanswered: 0,
            protocol,
            is_open: true,
            heartbeat: None,
            place: None,
        }
    }

    pub(super) fn with_place(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(place);
        self
    }

    /// Returns the subprotocol that both sides have agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Returns a handle with which others send on this connection.
    pub fn sender(&self) -> RawSender {
        self.sender.clone()
    }

    /// Asks the other side for a sign of life after each `interval` in which nothing came, and takes the connection for
    /// lost if nothing comes within `timeout` after that. Both count while [`RawConnection::receive`] is awaited.
    #[must_use]
    pub fn with_heartbeat(mut self, interval: Duration, timeout: Duration) -> Self {
        self.heartbeat = Some(Heartbeat::new(interval, timeout));
        self
    }

    /// Waits for the first text or bytes, by which a client says who it is, and returns what `judge` makes of them. A
    /// client that says nothing for `deadline`, or for whom `judge` returns `None`, is closed with 1008.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if nothing came in time; [`ClientError::AuthenticationFailed`] if it was not good enough;
    /// [`ClientError::ConnectionClosed`] if the connection has ended.
    pub async fn authenticate<T, F, R>(&mut self, deadline: Duration, judge: F) -> ClientResult<T>
    where
        F: FnOnce(Message) -> R,
        R: Future<Output = Option<T>>,
    {
        let judged = async {
            let first = self.first().await?;
            let refused = || ClientError::AuthenticationFailed(Arc::new(Cause::new(REFUSED)));
            judge(first).await.ok_or_else(refused)
        };
        let late = Err(ClientError::Timeout("the first message"));
        let outcome = tokio::time::timeout(deadline, judged).await.unwrap_or(late);
        if let Err(ClientError::Timeout(_) | ClientError::AuthenticationFailed(_)) = &outcome {
            // Whoever reads nothing holds up nobody: the answer goes as far as the network takes it.
            let _ = tokio::time::timeout(GOODBYE, self.close(POLICY, REFUSED)).await;
        }
        outcome
    }

    async fn first(&mut self) -> ClientResult<Message> {
        loop {
            match self.receive().await? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => return Ok(message),
                Some(_) => {}
                None => return Err(ClientError::ConnectionClosed(DisconnectReason::TransportClosed)),
            }
        }
    }

    /// Whether neither side has closed the connection, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.is_open
    }

    /// Waits for the next message, and sends what the handles of [`RawConnection::sender`] want to send in the meantime.
    /// `None` means that the connection has ended in order. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError::ConnectionClosed`] if the connection was lost, or the other side violated the protocol.
    pub async fn receive(&mut self) -> ClientResult<Option<Message>> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Sends a text.
    ///
    /// # Errors
    /// [`ClientError::ConnectionClosed`] if the connection has ended.
    pub async fn send_text(&mut self, text: &str) -> ClientResult<()> {
        self.send(Message::Text(text.to_owned())).await
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// As [`RawConnection::send_text`].
    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) -> ClientResult<()> {
        self.send(Message::Binary(bytes.into())).await
    }

    /// Asks for a sign of life, with up to 125 bytes that come back as [`Message::Pong`].
    ///
    /// # Errors
    /// As [`RawConnection::send_text`]; [`ClientError::Config`] for more bytes.
    pub async fn send_ping(&mut self, bytes: impl Into<Bytes>) -> ClientResult<()> {
        self.send(Message::Ping(bytes.into())).await
    }

    /// Sends a pong, of which nobody has to ask for. Pings are answered without this, while the connection is read.
    ///
    /// # Errors
    /// As [`RawConnection::send_ping`].
    pub async fn send_pong(&mut self, bytes: impl Into<Bytes>) -> ClientResult<()> {
        self.send(Message::Pong(bytes.into())).await
    }

    /// Closes the connection with a code (1000 is the normal one, 3000 to 4999 are for applications) and a reason of up to
    /// 123 bytes. [`RawConnection::receive`] returns what still comes, and then `None`.
    ///
    /// # Errors
    /// As [`RawConnection::send_text`]; [`ClientError::Config`] for a code that must not be sent, or a longer reason.
    pub async fn close(&mut self, code: u16, reason: &str) -> ClientResult<()> {
        self.send(Message::Close(code, reason.to_owned())).await
    }

    async fn send(&mut self, message: Message) -> ClientResult<()> {
        // What others wanted to send before goes first.
        let mut frame = Some(message.into_frame()?);
        poll_fn(|cx| {
            ready!(self.poll_send(cx))?;
            match frame.take() {
                Some(_) if !self.is_open => Poll::Ready(Err(Error::AlreadyClosed)),
                Some(frame) => {
                    self.pending = Some(frame);
                    self.poll_send(cx)
                }
                None => Poll::Ready(Ok(())),
            }
        })
        .await
        .map_err(|error| self.ended(error))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<ClientResult<Option<Message>>> {
        loop {
            let is_late = self.is_open && self.poll_heartbeat(cx);
            match self.poll_send(cx) {
                Poll::Ready(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.ended(error))),
                Poll::Ready(Ok(())) => self.unanswered = 0,
                // The answers to whoever asks and does not read them would fill the memory.
                Poll::Pending if self.unanswered >= UNANSWERED_PINGS_MAX => {
                    return self.poll_silence(is_late);
                }
                Poll::Pending => {}
            }
            let frame = match Pin::new(&mut self.stream).poll_next(cx) {
                // What came while nobody read is a sign of life too, so silence is judged after reading.
                Poll::Pending => return self.poll_silence(is_late),
                Poll::Ready(None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed))) => {
                    self.end();
                    // The end of the WebSocket is that of its TCP connection, whether this handle is kept or not.
                    let _ = Pin::new(self.stream.get_mut()).poll_shutdown(cx);
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.ended(error))),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            self.heartbeat.iter_mut().for_each(Heartbeat::heard);
            if frame.is_close() {
                self.end();
            }
            self.unanswered += usize::from(frame.is_ping());
            if frame.is_close() || frame.is_ping() {
                // The answer leaves now, whether anybody reads on or not. A failure shows when somebody does.
                let _ = Pin::new(&mut self.stream).poll_flush(cx);
            }
            if let Some(message) = Message::from_frame(frame) {
                return Poll::Ready(Ok(Some(message)));
            }
        }
    }

    /// Waits on, or ends the connection because the other side `is_late` with its sign of life.
    fn poll_silence(&mut self, is_late: bool) -> Poll<ClientResult<Option<Message>>> {
        if !is_late {
            return Poll::Pending;
        }
        self.end();
        Poll::Ready(Err(ClientError::ConnectionClosed(DisconnectReason::HeartbeatTimeout)))
    }

    /// Asks for a sign of life when it is time. Returns whether there was none, as far as was read.
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(heartbeat) = &mut self.heartbeat else { return false };
        while heartbeat.timer.as_mut().poll(cx).is_ready() {
            if heartbeat.is_asking {
                return true;
            }
            heartbeat.is_asking = true;
            heartbeat.timer.as_mut().reset(later(heartbeat.timeout));
            // Where so much waits that it has no room, the other side has enough to answer with.
            let _ = self.sender.try_send_frame(Frame::Ping(Bytes::new()));
        }
        false
    }

    /// Sends what waits. Ready when the network has taken all of it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.pending.is_some() {
                ready!(Pin::new(&mut self.stream).poll_ready(cx))?;
                self.start_send()?;
            }
            match self.outgoing.poll_recv(cx) {
                // It came before the close and was not sent in time: after a close, nothing may be sent.
                Poll::Ready(Some(_)) if !self.is_open => {}
                Poll::Ready(Some(frame)) => self.pending = Some(frame),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Hands the pending frame to the network. After a close there is no other.
    fn start_send(&mut self) -> Result<(), Error> {
        let Some(frame) = self.pending.take() else { return Ok(()) };
        let is_close = frame.is_close();
        Pin::new(&mut self.stream).start_send(frame)?;
        if is_close {
            self.end();
        }
        Ok(())
    }

    /// Takes nothing from others any more, who learn of it when they send.
    fn end(&mut self) {
        self.is_open = false;
        self.pending = None;
        self.outgoing.close();
    }

    fn ended(&mut self, error: Error) -> ClientError {
        self.end();
        ClientError::ConnectionClosed(match error {
            Error::ConnectionClosed | Error::AlreadyClosed => DisconnectReason::TransportClosed,
            other => DisconnectReason::TransportFailed(Arc::new(Cause::new(other))),
        })
    }
}

impl fmt::Debug for RawConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RawConnection(open: {}, protocol: {:?})", self.is_open, self.protocol)
    }
}

/// A handle with which others than its owner send on a connection. Its owner has to call
/// [`RawConnection::receive`] meanwhile. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct RawSender(mpsc::Sender<Frame>);

impl RawSender {
    /// Sends a message, after up to 64 others that wait.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection was closed or is gone; [`ClientError::Config`] as for
    /// [`RawConnection::send_ping`] and [`RawConnection::close`].
    pub async fn send(&self, message: Message) -> ClientResult<()> {
        self.0.send(message.into_frame()?).await.map_err(|_| ClientError::Closed)
    }

    /// Sends a message if fewer than 64 wait.
    ///
    /// # Errors
    /// [`ClientError::Full`] if so many wait; those of [`RawSender::send`].
    pub fn try_send(&self, message: Message) -> ClientResult<()> {
        self.try_send_frame(message.into_frame()?)
    }

    pub(super) fn try_send_frame(&self, frame: Frame) -> ClientResult<()> {
        self.0.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ClientError::Full,
            mpsc::error::TrySendError::Closed(_) => ClientError::Closed,
        })
    }
}

/// Finds out whether the other side is there.
struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether a sign of life was asked for.
    is_asking: bool,
}

impl Heartbeat {
    fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, timer: Box::pin(sleep_until(later(interval))), is_asking: false }
    }

    /// Notes a sign of life.
    fn heard(&mut self) {
        self.is_asking = false;
        self.timer.as_mut().reset(later(self.interval));
    }
}

/// The time after a pause. Whoever wants to wait for ever waits for 30 years.
fn later(pause: Duration) -> Instant {
    Instant::now() + pause.min(FAR)
}

fn control(bytes: Bytes) -> ClientResult<Bytes> {
    match bytes.len() > CONTROL_BYTES_MAX {
        true => Err(ClientError::Config(format!("a ping has up to {CONTROL_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

fn close_frame(code: u16, reason: String) -> ClientResult<CloseFrame> {
    let code = CloseCode::from(code);
    if !code.is_allowed() || reason.len() > REASON_MAX {
        let text = format!("{code} must not be sent, or its reason has more than {REASON_MAX} bytes");
        return Err(ClientError::Config(text));
    }
    Ok(CloseFrame { code, reason: reason.into() })
}

/// The code for an end because of what the other side did, or did not say (RFC 6455 section 7.4.1).
const POLICY: u16 = 1008;

/// Why a client was not let in.
const REFUSED: &str = "it has not said who it is";

/// How long it may take to say so.
const GOODBYE: Duration = Duration::from_secs(1);

/// Longer than any program runs, and short enough for the clocks of all systems.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The code for an end without one (RFC 6455 section 7.1.5).
const NO_STATUS: u16 = 1005;

/// The maximum number of bytes in a control frame (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The maximum number of bytes in the reason of a close: a control frame without the code.
const REASON_MAX: usize = CONTROL_BYTES_MAX - 2;

/// The maximum number of pings whose answers the network has not taken. While there are so many, nothing more is read.
const UNANSWERED_PINGS_MAX: usize = 64;

/// The maximum number of messages of others that wait for a connection.
const OUTGOING_MESSAGES_MAX: usize = 64;

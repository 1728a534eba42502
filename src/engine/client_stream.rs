//! The stream of a client whose WebSocket or WebTransport session another node answers: its bytes are passed on as they are. While nothing
//! moves, it owns no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::engine::raw_stream::{Io, TakeStream, take_known};
use crate::engine::read_buffer::with_read_buffer;

/// The stream of a client that this node does not read, once the request has been answered.
pub struct ClientStream {
    below: Below,
    stall_max: Duration,
}

/// What the stream is.
enum Below {
    /// That below a WebSocket, which the HTTP layer releases.
    WebSocket(OnUpgrade, Option<TakeStream>),
    /// That of a WebTransport session.
    WebTransport(Box<dyn SessionStream>),
}

/// The stream of a client that is released already, inside a session of the client's own.
pub(crate) trait SessionStream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Returns the bytes of the client that were read already.
    fn take_early(&mut self) -> Bytes;

    /// Ends the session of the client, once it has everything.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

impl ClientStream {
    /// Creates the stream of a request that is being answered. A client that takes nothing of what waits for it is
    /// let go after `stall_max`.
    pub(crate) fn new(upgrade: OnUpgrade, take: Option<TakeStream>, stall_max: Duration) -> Self {
        Self { below: Below::WebSocket(upgrade, take), stall_max }
    }

    /// Creates the stream of a WebTransport session whose first packet has been read.
    pub(crate) fn webtransport(stream: Box<dyn SessionStream>, stall_max: Duration) -> Self {
        Self { below: Below::WebTransport(stream), stall_max }
    }

    /// Waits until the response was sent, then carries bytes between the client and `owner` until both have ended,
    /// or one has failed. Once one has ended, the other has 10 s. A client that takes nothing for as long as the
    /// owner waits for a pong is let go: the end of its session would never reach it.
    ///
    /// # Errors
    /// The error of either stream.
    pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(self, owner: S) -> io::Result<()> {
        let (upgrade, take) = match self.below {
            Below::WebSocket(upgrade, take) => (upgrade, take),
            Below::WebTransport(mut client) => {
                let early = client.take_early();
                let carried = carry(&mut client, early, owner, self.stall_max).await;
                client.close().await;
                return carried;
            }
        };
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        let TakeStream(take) = take.unwrap_or(TakeStream(take_known));
        let Some((stream, early)) = take(upgraded) else {
            return Err(io::Error::other("the stream of the listener is not known"));
        };
        let (io, _held) = stream.into_parts();
        match io {
            Io::Open(client) => carry(client, early, owner, self.stall_max).await,
            Io::Secure(client) => carry(client, early, owner, self.stall_max).await,
            Io::Waiting(..) | Io::Gone => Ok(()),
        }
    }
}

/// Carries bytes in both directions. `early` was already read from the client.
async fn carry<C, O>(mut client: C, early: Bytes, mut owner: O, stall_max: Duration) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + Unpin,
{
    let mut to_owner = OneWay { waiting: early, ..OneWay::default() };
    let mut to_client = OneWay::default();
    let mut stall = Stall::new(stall_max);
    let mut first = true;
    let mut turn = |cx: &mut Context<'_>| {
        let forth = to_owner.poll(cx, &mut client, &mut owner)?;
        let back = to_client.poll(cx, &mut owner, &mut client)?;
        if stall.poll(cx, to_client.blocked_since).is_ready() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
        let ended = usize::from(forth.is_ready()) + usize::from(back.is_ready());
        let wanted = if first { 1 } else { 2 };
        if ended < wanted {
            return Poll::Pending;
        }
        first = false;
        Poll::Ready(io::Result::Ok(()))
    };
    poll_fn(&mut turn).await?;
    let rest = tokio::time::timeout(END_TIME, poll_fn(&mut turn)).await;
    rest.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// One direction between two streams.
#[derive(Default)]
struct OneWay {
    /// Bytes that were read, and that the other side has not taken yet.
    waiting: Bytes,
    /// Whether the sender has ended.
    ended: bool,
    /// Whether the receiver knows that.
    done: bool,
    /// Since when the receiver takes nothing of what waits.
    blocked_since: Option<Instant>,
}

impl OneWay {
    /// Moves bytes until there are none, or the receiver takes none. Ready once the sender has ended and the receiver
    /// knows it.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..READS_PER_TURN {
            ready!(self.poll_deliver(cx, to))?;
            if self.ended {
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_read(cx, from, to))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Passes on what waits, and that the sender has ended. Notes since when the receiver takes nothing.
    fn poll_deliver<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        let delivered = self.poll_write(cx, to);
        self.blocked_since = match &delivered {
            Poll::Pending => self.blocked_since.or_else(|| Some(Instant::now())),
            Poll::Ready(_) => None,
        };
        delivered
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
            self.blocked_since = None;
        }
        // An idle direction holds no memory.
        self.waiting = Bytes::new();
        ready!(Pin::new(&mut *to).poll_flush(cx))?;
        match self.ended {
            true => Pin::new(&mut *to).poll_shutdown(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Reads once into the buffer of this thread, and writes from there. Only what does not fit is copied.
    fn poll_read<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        with_read_buffer(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            self.ended = filled.is_empty();
            let written = match filled.is_empty() {
                true => 0,
                false => match Pin::new(to).poll_write(cx, filled)? {
                    Poll::Ready(written) => written,
                    Poll::Pending => 0,
                },
            };
            self.waiting = Bytes::copy_from_slice(&filled[written..]);
            Poll::Ready(Ok(()))
        })
    }
}

/// The deadline of a receiver that takes nothing.
pub(super) struct Stall {
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, timer: None }
    }

    /// Ready once the receiver has been blocked for the longest time that is allowed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, blocked_since: Option<Instant>) -> Poll<()> {
        let Some(since) = blocked_since else {
            self.timer = None;
            return Poll::Pending;
        };
        let deadline = since + self.longest;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

/// How often one direction is read before other tasks run.
const READS_PER_TURN: usize = 16;
/// How long one side may take to end after the other one has.
const END_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    const STALL_MAX: Duration = Duration::from_secs(45);

    #[tokio::test]
    async fn bytes_pass_in_both_directions_whatever_the_receiver_takes_at_once() {
        let ((mut client, ours), (theirs, mut owner)) = (duplex(7), duplex(64));
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let joined = carry(ours, Bytes::from_static(b"early"), theirs, STALL_MAX);
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        let client_side = async {
            let (mut reading, mut writing) = tokio::io::split(&mut client);
            let write = async {
                writing.write_all(&sent).await.unwrap();
                writing.shutdown().await.unwrap();
            };
            tokio::join!(write, async { reading.read_to_end(&mut back).await.unwrap() });
        };
        let owner_side = async {
            let (mut reading, mut writing) = tokio::io::split(&mut owner);
            let write = async {
                writing.write_all(&sent).await.unwrap();
                writing.shutdown().await.unwrap();
            };
            tokio::join!(write, async { reading.read_to_end(&mut forth).await.unwrap() });
        };
        let (joined, (), ()) = tokio::join!(joined, client_side, owner_side);
        assert!(joined.is_ok());
        assert!(back == sent && forth.strip_prefix(b"early") == Some(&sent[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_vanishes_is_let_go_when_the_owner_has_ended() {
        let ((_client, ours), (theirs, owner)) = (duplex(64), duplex(64));
        drop(owner);
        let ended = carry(ours, Bytes::new(), theirs, STALL_MAX).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_let_go_though_the_end_of_its_session_never_reaches_it() {
        let ((_client, ours), (theirs, mut owner)) = (duplex(7), duplex(64));
        owner.write_all(b"more than the client takes").await.unwrap();
        drop(owner);
        let carried = carry(ours, Bytes::new(), theirs, STALL_MAX);
        let ended = timeout(2 * STALL_MAX, carried).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_is_kept() {
        let ((mut client, ours), (theirs, mut owner)) = (duplex(1), duplex(64));
        owner.write_all(b"slow").await.unwrap();
        let reading = async {
            let mut read = [0; 4];
            for byte in &mut read {
                sleep(STALL_MAX - Duration::from_secs(1)).await;
                *byte = client.read_u8().await.unwrap();
            }
            read
        };
        tokio::select! {
            ended = carry(ours, Bytes::new(), theirs, STALL_MAX) => panic!("ended: {ended:?}"),
            read = reading => assert_eq!(&read, b"slow"),
        }
    }
}

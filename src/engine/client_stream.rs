//! The stream of a client whose WebSocket another node answers: its bytes are passed on as they are. While nothing
//! moves, it owns no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::raw_stream::{Io, TakeStream, take_known};
use crate::engine::read_buffer::with_read_buffer;

/// The stream below a WebSocket that this node does not read, once the request has been answered.
pub struct ClientStream {
    upgrade: OnUpgrade,
    take: Option<TakeStream>,
}

impl ClientStream {
    /// Creates the stream of a request that is being answered.
    pub(crate) fn new(upgrade: OnUpgrade, take: Option<TakeStream>) -> Self {
        Self { upgrade, take }
    }

    /// Waits until the response was sent, then carries bytes between the client and `owner` until both have ended,
    /// or one has failed. Once one has ended, the other has 10 s.
    ///
    /// # Errors
    /// The error of either stream.
    pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(self, owner: S) -> io::Result<()> {
        let upgraded = self.upgrade.await.map_err(io::Error::other)?;
        let TakeStream(take) = self.take.unwrap_or(TakeStream(take_known));
        let Some((stream, early)) = take(upgraded) else {
            return Err(io::Error::other("the stream of the listener is not known"));
        };
        match stream.into_io() {
            Io::Open(client) => carry(client, early, owner).await,
            Io::Secure(client) => carry(client, early, owner).await,
            Io::Waiting(..) | Io::Gone => Ok(()),
        }
    }
}

/// Carries bytes in both directions. `early` was already read from the client.
async fn carry<C, O>(mut client: C, early: Bytes, mut owner: O) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    O: AsyncRead + AsyncWrite + Unpin,
{
    let mut to_owner = OneWay { waiting: early, ..OneWay::default() };
    let mut to_client = OneWay::default();
    let mut first = true;
    let mut turn = |cx: &mut Context<'_>| {
        let forth = to_owner.poll(cx, &mut client, &mut owner)?;
        let back = to_client.poll(cx, &mut owner, &mut client)?;
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
            ready!(self.poll_write(cx, to))?;
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_read(cx, from, to))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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
        }
        // An idle direction holds no memory.
        self.waiting = Bytes::new();
        Poll::Ready(Ok(()))
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

/// How often one direction is read before other tasks run.
const READS_PER_TURN: usize = 16;
/// How long one side may take to end after the other one has.
const END_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_in_both_directions_whatever_the_receiver_takes_at_once() {
        let ((mut client, ours), (theirs, mut owner)) = (duplex(7), duplex(64));
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let joined = carry(ours, Bytes::from_static(b"early"), theirs);
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
        let ended = carry(ours, Bytes::new(), theirs).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

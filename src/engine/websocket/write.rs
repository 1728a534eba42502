//! The writing of queued frames to the byte stream of a WebSocket, with vectored writes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::engine::Frame;

/// Writes all frames, as far as the stream accepts them. `written` bytes of the first one are already sent.
pub(super) fn write_all<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    frames: &mut VecDeque<Frame>,
    written: &mut usize,
) -> Poll<io::Result<()>> {
    while let Some(first) = frames.front() {
        let count = if frames.len() == 1 {
            Pin::new(&mut *stream).poll_write(cx, &first.wire()[*written..])
        } else {
            write_many(stream, cx, frames, *written)
        };
        match ready!(count) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Err(error) => return Poll::Ready(Err(error)),
            Ok(count) => *written = advance(frames, *written + count),
        }
    }
    Poll::Ready(Ok(()))
}

fn write_many<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    frames: &VecDeque<Frame>,
    written: usize,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut skip = written;
    let mut count = 0;
    for (slice, frame) in slices.iter_mut().zip(frames) {
        *slice = IoSlice::new(&frame.wire()[skip..]);
        skip = 0;
        count += 1;
    }
    Pin::new(stream).poll_write_vectored(cx, &slices[..count])
}

/// Drops the frames that are complete within the first `written` bytes. Returns the bytes that belong to the
/// next frame.
fn advance(frames: &mut VecDeque<Frame>, mut written: usize) -> usize {
    while let Some(length) = frames.front().map(Frame::len)
        && written >= length
    {
        written -= length;
        frames.pop_front();
    }
    written
}

/// The maximum number of frames per vectored write.
const SLICES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_keeps_what_is_left() {
        let mut frames: VecDeque<_> = [Frame::text("a"), Frame::text("bc"), Frame::text("d")].into();
        assert_eq!(advance(&mut frames, 6), 2);
        assert_eq!(frames.front().map(Frame::payload), Some(b"4bc".as_slice()));
        assert_eq!(advance(&mut frames, 5), 0);
        assert_eq!(frames.len(), 1);
    }
}

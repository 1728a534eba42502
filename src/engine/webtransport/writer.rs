//! The sending direction of a stream: what waits to be written, and how far it is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::ends::Sending;
use crate::engine::Frame;
use crate::engine::outbox::Backlog;

/// The sending direction of a stream.
pub(super) struct Writer {
    pub(super) sending: Sending,
    frames: VecDeque<Frame>,
    /// The number of bytes of the first frame that are already sent, as encoded on this wire.
    written: usize,
}

impl Writer {
    pub(super) fn new(sending: Sending) -> Self {
        Self { sending, frames: VecDeque::new(), written: 0 }
    }

    /// Queues one message.
    pub(super) fn push(&mut self, frame: Frame) {
        self.frames.push_back(frame);
    }

    /// Queues one message before all others that are not partly written.
    pub(super) fn push_first(&mut self, frame: Frame) {
        self.frames.insert(usize::from(self.written > 0), frame);
    }

    /// Discards everything that is queued, except for a partly written frame.
    pub(super) fn discard(&mut self) {
        self.frames.truncate(usize::from(self.written > 0));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes everything that is queued, as far as the peer accepts it.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frames.is_empty() {
            let written = with_write_buffer(|buffer| {
                gather(buffer, &self.frames, self.written);
                AsyncWrite::poll_write(Pin::new(&mut self.sending), cx, buffer)
            });
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written = advance(&mut self.frames, self.written + count),
            }
        }
        self.frames = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    /// Ends the direction. The rest of a frame that the peer has not taken yet is given up: to write it now would fail.
    pub(super) fn finish(&mut self) {
        (self.frames, self.written) = (VecDeque::new(), 0);
        self.sending.finish();
    }

    /// Returns what is queued.
    pub(super) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let mut written = self.written;
        for frame in &self.frames {
            backlog.add(frame, stream_length(frame) - std::mem::take(&mut written));
        }
        backlog
    }
}

/// Fills `buffer` with the bytes to write next.
fn gather(buffer: &mut Vec<u8>, frames: &VecDeque<Frame>, written: usize) {
    buffer.clear();
    let mut skip = written;
    for frame in frames {
        let (first, rest) = frame.stream_parts();
        if skip == 0 {
            buffer.push(first);
        }
        let rest = &rest[skip.saturating_sub(1)..];
        skip = 0;
        buffer.extend_from_slice(&rest[..rest.len().min(WRITE_BYTES)]);
        if buffer.len() >= WRITE_BYTES || rest.len() > WRITE_BYTES {
            return;
        }
    }
}

/// Drops the frames that are complete within the first `written` bytes. Returns the bytes that belong to the
/// next frame.
fn advance(frames: &mut VecDeque<Frame>, mut written: usize) -> usize {
    while let Some(length) = frames.front().map(stream_length)
        && written >= length
    {
        written -= length;
        frames.pop_front();
    }
    written
}

fn stream_length(frame: &Frame) -> usize {
    frame.stream_parts().1.len() + 1
}

fn with_write_buffer<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    WRITE_BUFFER.with_borrow_mut(write)
}

thread_local! {
    /// One buffer per thread: QUIC copies written data, but each call has a cost.
    static WRITE_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The approximate number of bytes that are passed to QUIC at once.
const WRITE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut frames: VecDeque<_> = [Frame::text("a"), Frame::binary(b"bc"), Frame::text("d")].into();
        let mut all = Vec::new();
        gather(&mut all, &frames, 0);
        assert_eq!(all, b"\x024a\x82bc\x024d");
        let mut written = 0;
        let mut sent = Vec::new();
        while !frames.is_empty() {
            let mut buffer = Vec::new();
            gather(&mut buffer, &frames, written);
            let count = buffer.len().min(2);
            sent.extend_from_slice(&buffer[..count]);
            written = advance(&mut frames, written + count);
        }
        assert_eq!(sent, all);
    }

    #[test]
    fn a_large_message_leaves_in_pieces() {
        let mut frames: VecDeque<_> = [Frame::binary(&vec![7; 3 * WRITE_BYTES]), Frame::text("last")].into();
        let (mut written, mut sent) = (0, Vec::new());
        while !frames.is_empty() {
            let mut buffer = Vec::new();
            gather(&mut buffer, &frames, written);
            assert!(buffer.len() <= WRITE_BYTES + 1);
            sent.extend_from_slice(&buffer);
            written = advance(&mut frames, written + buffer.len());
        }
        let expected =
            [&[0xFF][..], &(3 * WRITE_BYTES as u64).to_be_bytes(), &vec![7; 3 * WRITE_BYTES], b"\x054last"];
        assert_eq!(sent, expected.concat());
    }
}

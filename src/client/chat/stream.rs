//! The events of one channel, as somebody reads them.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use uuid::Uuid;

use super::event::{ChannelEvent, Cursor};
use super::readers::{Start, Taken};
use super::timeline::Options;
use super::{Chat, Inner};
use crate::client::error::{ClientError, ClientResult};

/// Where a stream begins and how it treats a long absence, until it is opened.
#[must_use = "nothing is read before `open`"]
#[derive(Debug)]
pub struct Reading {
    chat: Chat,
    channel: Uuid,
    start: Start,
    options: Options,
}

impl Reading {
    pub(super) fn new(chat: Chat, channel: Uuid) -> Self {
        let options = Options { buffer: BUFFER, skip_gaps: false };
        Self { chat, channel, start: Start::Now, options }
    }

    /// Begins after the event that left this place: what [`Messages::cursor`] returned, perhaps in an earlier process.
    pub fn since(self, cursor: Cursor) -> Self {
        Self { start: Start::After(cursor), ..self }
    }

    /// Begins with so many of the newest messages, 1 to 100.
    pub fn last(self, messages: usize) -> Self {
        Self { start: Start::Last(messages), ..self }
    }

    /// Begins with the oldest message that the channel still has.
    pub fn from_start(self) -> Self {
        Self { start: Start::Oldest, ..self }
    }

    /// Leaves out messages that are more than one answer of the server holds (200), and tells a [`ChannelEvent::Gap`] in
    /// their place, for views that show only the newest. Otherwise all of them are fetched.
    pub fn skip_gaps(mut self) -> Self {
        self.options.skip_gaps = true;
        self
    }

    /// Sets how many live events wait for the reader at most, 1 or more; 512 by default. Further ones are dropped, and
    /// fetched when half of the room is free.
    pub fn buffer(mut self, events: usize) -> Self {
        self.options.buffer = events.max(1);
        self
    }

    /// Opens the stream, without waiting for anything. [`Messages::ready`] waits until it has begun.
    pub fn open(self) -> Messages {
        let Self { chat, channel, start, options } = self;
        let chat = chat.0;
        let number = chat.state.readers.lock().open(channel, start, options);
        chat.state.poke.notify_one();
        Messages { chat, channel, number, cursor: None }
    }
}

/// The messages of a channel and their changes: in order, none missing and none twice, over lost connections, restarts of
/// the server and pauses of the reader.
///
/// It ends with an error when the channel can no longer be read, because the user has left it or may not see it, and when
/// the server keeps the client out; without one when the client is closed.
pub struct Messages {
    chat: Arc<Inner>,
    channel: Uuid,
    number: u64,
    cursor: Option<Cursor>,
}

impl Messages {
    /// Returns the id of the channel.
    pub fn channel(&self) -> Uuid {
        self.channel
    }

    /// Returns the place after the last event that was taken, or where the stream has begun; `None` before the server has
    /// said where that is. A program that keeps it goes on from there, with [`Reading::since`].
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// Returns the number of events that wait for the reader, or for their predecessors.
    pub fn waiting(&self) -> usize {
        self.chat.state.readers.lock().waiting(self.number)
    }

    /// Waits until the server has said where the stream begins, and returns that place.
    ///
    /// # Errors
    /// Why it has ended, if it never began; [`ClientError::Closed`] if the client was closed.
    pub async fn ready(&mut self) -> ClientResult<Cursor> {
        let begun = poll_fn(|cx| {
            let begun = self.chat.state.readers.lock().begun(self.number, cx.waker());
            begun.map_or_else(
                |error| Poll::Ready(Err(error)),
                |begin| begin.map(Ok).map_or(Poll::Pending, Poll::Ready),
            )
        });
        let begin = begun.await.map_err(|error| error.unwrap_or(ClientError::Closed))?;
        self.cursor.get_or_insert(begin);
        Ok(begin)
    }

    /// Waits for the next event. `None` means that the stream has ended.
    ///
    /// # Errors
    /// Why it has ended: [`ClientError::Refused`] with the code of the server, or that of the connection. `None` follows.
    pub async fn next(&mut self) -> Option<ClientResult<ChannelEvent>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<ClientResult<ChannelEvent>>> {
        let state = &self.chat.state;
        let mut readers = state.readers.lock();
        match readers.take(self.number, cx.waker()) {
            Taken::Event(event, cursor) => {
                // There may be room now for what was dropped, and for what is missing.
                if readers.is_due(self.number) {
                    state.poke.notify_one();
                }
                self.cursor = Some(cursor);
                Poll::Ready(Some(Ok(event)))
            }
            Taken::End(error) => Poll::Ready(error.map(Err)),
            Taken::Nothing => Poll::Pending,
        }
    }
}

impl Stream for Messages {
    type Item = ClientResult<ChannelEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Messages({}, {} wait)", self.channel, self.waiting())
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.chat.state.readers.lock().close(self.number);
    }
}

/// The number of live events that wait for a reader by default.
const BUFFER: usize = 512;

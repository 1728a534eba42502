//! The reader of the log of changes, which all four watch streams share.

use std::collections::VecDeque;
use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::Status;

use super::Directory;
use super::change::ChangeRow;
use super::status::failed;

/// An item of a stream, before it is converted to the event of its service.
pub(super) enum Item {
    /// A row of the log.
    Change(ChangeRow),
    /// The stream begins; later items are live.
    CaughtUp,
    /// The cursor is too old, so changes were missed.
    Reset,
}

/// A stream of events with their cursors.
pub(super) type Cursored<E> = BoxStream<'static, Result<(String, E), Status>>;

struct Reader {
    directory: Directory,
    head: watch::Receiver<i64>,
    seq: i64,
    ready: VecDeque<(String, Item)>,
}

impl Directory {
    /// Returns the number of the last change that was noticed.
    pub(super) fn head(&self) -> i64 {
        *self.0.head.borrow()
    }

    /// Returns a stream of the changes after `cursor`. If `cursor` is empty, the stream has `caught_up` and the changes
    /// after `seq`, which must be the [`Directory::head`] from before anything was read that the caller sends first.
    /// `form` converts an item to an event of the service, or drops it.
    pub(super) async fn stream<E, F, Fut>(
        &self,
        cursor: String,
        seq: i64,
        form: F,
    ) -> Result<Cursored<E>, Status>
    where
        E: Send + 'static,
        F: Fn(Directory, Item) -> Fut + Send + Sync + Clone + 'static,
        Fut: Future<Output = Result<Option<E>, Status>> + Send + 'static,
    {
        let head = self.0.head.subscribe();
        let mut reader = Reader { directory: self.clone(), head, seq, ready: VecDeque::new() };
        reader.begin(&cursor).await?;
        let stop = self.0.stop.clone();
        let items = stream::unfold(reader, |mut reader| async {
            let item = reader.next().await;
            Some((item, reader))
        });
        let directory = self.clone();
        let events = items.filter_map(move |item| {
            let (form, directory) = (form.clone(), directory.clone());
            async move {
                match item {
                    Err(status) => Some(Err(status)),
                    Ok((cursor, item)) => form(directory, item)
                        .await
                        .map(|event| event.map(|event| (cursor, event)))
                        .transpose(),
                }
            }
        });
        Ok(events.take_until(stop.cancelled_owned()).boxed())
    }
}

impl Reader {
    async fn begin(&mut self, cursor: &str) -> Result<(), Status> {
        if cursor.is_empty() {
            self.ready.push_back((self.seq.to_string(), Item::CaughtUp));
            return Ok(());
        }
        let seq = cursor.parse().map_err(|_| Status::invalid_argument("cursor"))?;
        if self.directory.is_gone(seq).await.map_err(failed)? {
            self.ready.push_back((self.seq.to_string(), Item::Reset));
        } else {
            self.seq = seq;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(String, Item), Status> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            let seq = self.seq;
            if self.head.wait_for(|head| *head > seq).await.is_err() {
                return Err(Status::unavailable("the directory is closing"));
            }
            for change in self.directory.changes_after(seq).await.map_err(failed)? {
                self.seq = change.seq;
                self.ready.push_back((change.seq.to_string(), Item::Change(change)));
            }
        }
    }
}

/// Converts a stream of events with cursors to a stream of wire events.
pub(super) fn mapped<E: Send + 'static, W: Send + 'static>(
    events: Cursored<E>,
    wire: fn((String, E)) -> W,
) -> BoxStream<'static, Result<W, Status>> {
    events.map(move |event| event.map(wire)).boxed()
}

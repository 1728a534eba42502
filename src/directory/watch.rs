//! The watch streams: one reader of the log of changes for all four.

use std::collections::VecDeque;
use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::Status;

use super::Directory;
use super::change::ChangeRow;
use super::status::failed;

/// What a stream is made of, before it has the form of its service.
pub(super) enum Item<X> {
    /// Of the snapshot at the beginning of a stream.
    Extra(X),
    /// A row of the log.
    Change(ChangeRow),
    /// What follows is live.
    CaughtUp,
    /// The cursor is too old.
    Reset,
}

/// Events with their cursors.
pub(super) type Cursored<E> = BoxStream<'static, Result<(String, E), Status>>;

struct Reader<X> {
    directory: Directory,
    head: watch::Receiver<i64>,
    seq: i64,
    ready: VecDeque<(String, Item<X>)>,
}

impl Directory {
    /// Number of the last change that was noticed.
    pub(super) fn head(&self) -> i64 {
        *self.0.head.borrow()
    }

    /// A stream from `cursor` on; when that is empty: `snapshot`, `caught_up`, and all after `seq`, which has to be
    /// the [`Directory::head`] before the snapshot was taken. `form` gives an item the form of the service, or
    /// leaves it out.
    pub(super) async fn stream<X, E, F, Fut>(
        &self,
        cursor: String,
        seq: i64,
        snapshot: Vec<Item<X>>,
        form: F,
    ) -> Result<Cursored<E>, Status>
    where
        X: Send + 'static,
        E: Send + 'static,
        F: Fn(Directory, Item<X>) -> Fut + Send + Sync + Clone + 'static,
        Fut: Future<Output = Result<Option<E>, Status>> + Send + 'static,
    {
        let head = self.0.head.subscribe();
        let mut reader = Reader { directory: self.clone(), head, seq, ready: VecDeque::new() };
        reader.begin(&cursor, snapshot).await?;
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

impl<X> Reader<X> {
    async fn begin(&mut self, cursor: &str, snapshot: Vec<Item<X>>) -> Result<(), Status> {
        if cursor.is_empty() {
            let now = self.seq.to_string();
            // No cursor before the end of the snapshot: one that broke off has to be sent again.
            self.ready.extend(snapshot.into_iter().map(|item| (String::new(), item)));
            self.ready.push_back((now, Item::CaughtUp));
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

    async fn next(&mut self) -> Result<(String, Item<X>), Status> {
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

/// A stream of wire events.
pub(super) fn mapped<E: Send + 'static, W: Send + 'static>(
    events: Cursored<E>,
    wire: fn((String, E)) -> W,
) -> BoxStream<'static, Result<W, Status>> {
    events.map(move |event| event.map(wire)).boxed()
}

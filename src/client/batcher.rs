//! Values that are collected for a moment and sent together as one event.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::budget::{Budget, Place};
use super::error::{ClientError, ClientResult};
use super::event::ClientEvent;
use super::socket::Socket;
use crate::error::ImksError;

/// When the values of a [`Batcher`] are sent: as soon as one of these is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    values: usize,
    bytes: usize,
    linger: Duration,
}

impl Default for Batching {
    /// 10 values, 64 KiB or 100 ms.
    fn default() -> Self {
        Self { values: 10, bytes: 64 * 1024, linger: Duration::from_millis(100) }
    }
}

impl Batching {
    /// Sets how many values are sent together at most, from 1 to 10,000.
    #[must_use]
    pub fn values(mut self, values: usize) -> Self {
        self.values = values.clamp(1, VALUES_MAX);
        self
    }

    /// Sets how many bytes of JSON are collected before they are sent. A larger value is sent alone, up to 16 times as
    /// many bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes.max(1);
        self
    }

    /// Sets how long the first value waits for others.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }
}

/// Collects values and sends them as one event, whose argument is an array of them. Cloning it is cheap, and all clones
/// collect together. When the last one is dropped, the rest is sent.
///
/// This is for many small values of one kind, where the head of a packet and a call of a handler each would cost more than
/// the value. Events that are emitted one after the other leave together anyway, as packets of their own.
///
/// ```no_run
/// use imks::client::{Batcher, Batching};
///
/// # async fn run(socket: imks::client::Socket) -> imks::client::ClientResult<()> {
/// let points = Batcher::new(&socket, "points", Batching::default().values(100));
/// for number in 0..1_000 {
///     points.add(&(number, number * number)).await?;
/// }
/// points.flush().await
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Batcher {
    asks: mpsc::Sender<Ask>,
    room: Budget,
}

/// What the task of a batcher is asked for.
enum Ask {
    Add(Box<RawValue>, Place),
    Flush(oneshot::Sender<ClientResult<()>>),
}

/// What is collected, without a clock.
struct Collected {
    rules: Batching,
    values: Vec<Box<RawValue>>,
    places: Vec<Place>,
    bytes: usize,
}

impl Batcher {
    /// Starts to collect values for an event.
    pub fn new(socket: &Socket, event: &str, rules: Batching) -> Self {
        let (values, bytes) = (rules.values * ROOM_BATCHES, rules.bytes.saturating_mul(ROOM_BATCHES));
        let (say, asks) = mpsc::channel(rules.values);
        let tasks = &socket.inner.shared.tasks;
        tasks.spawn(collect(socket.clone(), event.into(), Collected::new(rules), asks));
        Self { asks: say, room: Budget::new(values, bytes) }
    }

    /// Adds a value. Waits while 16 batches are not sent yet, because the client has no room for them.
    ///
    /// # Errors
    /// [`ClientError::InvalidMessage`] for a value that cannot be JSON, in which bytes are an array of numbers;
    /// [`ClientError::Full`] for one that is larger than 16 batches; [`ClientError::Closed`] if the client has ended.
    pub async fn add(&self, value: &impl Serialize) -> ClientResult<()> {
        let value = to_raw_value(value)
            .map_err(|error| ClientError::invalid(ImksError::EngineSerialization(error)))?;
        let place = self.room.wait(value.get().len()).await.ok_or(ClientError::Full)?;
        self.asks.send(Ask::Add(value, place)).await.map_err(|_| ClientError::Closed)
    }

    /// Sends what is collected, and waits until the client has room for it, as [`Socket::emit`] does.
    ///
    /// # Errors
    /// Those of [`Socket::emit`].
    pub async fn flush(&self) -> ClientResult<()> {
        let (say, sent) = oneshot::channel();
        self.asks.send(Ask::Flush(say)).await.map_err(|_| ClientError::Closed)?;
        sent.await.map_err(|_| ClientError::Closed)?
    }

    /// Returns how many values are collected and not sent yet.
    pub fn len(&self) -> usize {
        self.room.used().events
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Collected {
    fn new(rules: Batching) -> Self {
        Self { rules, values: Vec::new(), places: Vec::new(), bytes: 0 }
    }

    /// Whether a value may be sent with those that are collected.
    fn has_room(&self, value: &RawValue) -> bool {
        self.values.is_empty() || self.bytes + value.get().len() <= self.rules.bytes
    }

    fn add(&mut self, value: Box<RawValue>, place: Place) {
        self.bytes += value.get().len();
        self.values.push(value);
        self.places.push(place);
    }

    fn is_full(&self) -> bool {
        self.values.len() >= self.rules.values || self.bytes >= self.rules.bytes
    }

    /// Takes everything that is collected.
    fn take(&mut self) -> (Vec<Box<RawValue>>, Vec<Place>) {
        self.bytes = 0;
        (std::mem::take(&mut self.values), std::mem::take(&mut self.places))
    }
}

/// Collects and sends until nobody adds any more.
async fn collect(socket: Socket, event: Arc<str>, mut collected: Collected, mut asks: mpsc::Receiver<Ask>) {
    let mut until = None;
    loop {
        let ask = match until {
            Some(until) => timeout_at(until, asks.recv()).await,
            None => Ok(asks.recv().await),
        };
        let (is_last, flushed) = match ask {
            Ok(Some(Ask::Add(value, place))) => {
                if !collected.has_room(&value) {
                    until = None;
                    tell(&socket, send(&socket, &event, &mut collected).await);
                }
                until = until.or_else(|| Instant::now().checked_add(collected.rules.linger));
                collected.add(value, place);
                if !collected.is_full() {
                    continue;
                }
                (false, None)
            }
            Ok(Some(Ask::Flush(say))) => (false, Some(say)),
            Ok(None) => (true, None),
            Err(_) => (false, None),
        };
        until = None;
        let sent = send(&socket, &event, &mut collected).await;
        match (flushed, sent) {
            // Whoever flushed may not wait any more.
            (Some(say), sent) => drop(say.send(sent)),
            (None, sent) => tell(&socket, sent),
        }
        if is_last {
            return;
        }
    }
}

async fn send(socket: &Socket, event: &str, collected: &mut Collected) -> ClientResult<()> {
    // The places are free when the values have one among what the client sends.
    let (values, _places) = collected.take();
    match values.is_empty() {
        true => Ok(()),
        false => socket.emit(event, &values).await,
    }
}

/// Tells the failure of a batch that nobody waits for.
fn tell(socket: &Socket, sent: ClientResult<()>) {
    if let Err(error) = sent {
        socket.inner.shared.notify(ClientEvent::Error(error));
    }
}

/// The number of batches for which there is room while the client has none.
const ROOM_BATCHES: usize = 16;

/// The maximum number of values of a batch.
const VALUES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_has_what_was_added_and_is_never_larger_than_it_may_be(
            texts in proptest::collection::vec("[a-z]{0,20}", 0..100),
            values in 1usize..10,
            bytes in 1usize..100,
        ) {
            let room = Budget::new(usize::MAX, usize::MAX);
            let mut collected = Collected::new(Batching::default().values(values).bytes(bytes));
            let mut batches = Vec::new();
            for text in &texts {
                let (value, place) = (to_raw_value(text).unwrap(), room.take_anyway(1));
                if !collected.has_room(&value) {
                    batches.push(collected.take().0);
                }
                collected.add(value, place);
                if collected.is_full() {
                    batches.push(collected.take().0);
                }
            }
            prop_assert!(!collected.is_full());
            batches.push(collected.take().0);
            prop_assert_eq!(room.used().events, 0);
            for batch in &batches {
                prop_assert!(batch.len() <= values);
                let size: usize = batch.iter().map(|value| value.get().len()).sum();
                prop_assert!(size <= bytes || batch.len() == 1);
            }
            let sent: Vec<String> =
                batches.iter().flatten().map(|value| serde_json::from_str(value.get()).unwrap()).collect();
            prop_assert_eq!(sent, texts);
        }
    }
}

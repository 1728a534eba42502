//! Wakes senders when something is due: a thread that is more exact than the timer of the runtime, which knows whole
//! milliseconds only. A latency that begins when an event is due would begin with the wait for that timer.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// A clock that wakes whoever waits. Its thread ends with it.
#[derive(Debug)]
pub(super) struct Pacer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Who waits, by the moment and a number of their own. Who waits no more is forgotten at that moment: a sender waits for
/// one moment at a time.
#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    next: u64,
    is_over: bool,
}

impl Pacer {
    /// Starts the clock.
    ///
    /// # Errors
    /// [`ImksError::Task`] if there can be no thread.
    pub(super) fn start() -> ImksResult<Self> {
        let shared = Arc::new(Shared::default());
        let ticking = shared.clone();
        let thread = std::thread::Builder::new().name("pacer".into()).spawn(move || ticking.run());
        thread.map_err(|error| ImksError::Task(Cause::new(error)))?;
        Ok(Self(shared))
    }

    /// Waits until a moment.
    pub(super) async fn until(&self, due: Instant) {
        if due <= Instant::now() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        {
            let mut state = self.0.state.lock();
            state.next += 1;
            let key = (due, state.next);
            state.waiting.insert(key, wake);
            if state.waiting.first_key_value().is_some_and(|(first, _)| *first == key) {
                self.0.changed.notify_one();
            }
        }
        // The thread lives as long as this.
        let _ = woken.await;
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            let now = Instant::now();
            while let Some(first) = state.waiting.first_entry().filter(|first| first.key().0 <= now) {
                // Who was interested may have gone.
                let _ = first.remove().send(());
            }
            match state.waiting.first_key_value().map(|((due, _), _)| due.into_std()) {
                Some(due) => {
                    self.changed.wait_until(&mut state, due);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_the_order_of_the_moments_and_never_too_early() {
        let (pacer, start) = (Pacer::start().unwrap(), Instant::now());
        let woken = Mutex::new(Vec::new());
        let wait = async |ms: u64| {
            let due = start + Duration::from_millis(ms);
            pacer.until(due).await;
            assert!(Instant::now() >= due);
            woken.lock().push(ms);
        };
        tokio::join!(wait(30), wait(10), wait(0), wait(20));
        assert_eq!(*woken.lock(), [0, 10, 20, 30]);
    }

    #[tokio::test]
    async fn who_waits_no_more_holds_nobody_up() {
        let pacer = Pacer::start().unwrap();
        let far = Instant::now() + Duration::from_secs(3_600);
        assert!(tokio::time::timeout(Duration::from_millis(1), pacer.until(far)).await.is_err());
        pacer.until(Instant::now() + Duration::from_millis(5)).await;
        assert_eq!(pacer.0.state.lock().waiting.len(), 1);
    }
}

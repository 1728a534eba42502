//! The one timer of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A sleep that is made when it is first needed, and moved as rarely as possible.
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires. Earlier than needed is fine: it is moved when it fires, not each time.
    armed: Instant,
}

impl Timer {
    pub(super) fn new(now: Instant) -> Self {
        Self { sleep: None, armed: now }
    }

    /// Ready when `deadline`, or one before it, has passed. `moved` says that another task polls than last time.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Option<Instant>,
        now: Instant,
        moved: bool,
    ) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let fresh = self.sleep.is_none();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if fresh || deadline < self.armed {
            sleep.as_mut().reset(deadline);
            self.armed = deadline;
        } else if !moved && self.armed > now {
            return Poll::Pending;
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.sleep = None;
        Poll::Ready(())
    }
}

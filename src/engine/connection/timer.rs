//! The single timer of a connection, set to its next deadline.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A sleep that is created when it is first needed, and reset as rarely as possible.
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The time when `sleep` fires. It may be earlier than needed: it is then reset when it fires, not on
    /// each change.
    armed: Instant,
}

impl Timer {
    pub(super) fn new(now: Instant) -> Self {
        Self { sleep: None, armed: now }
    }

    /// Ready when `deadline`, or an earlier one, has passed. `moved` means that the polling task changed.
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

//! The events that come before the answer to a CONNECT: those that were missed, if the session is restored.

use crate::error::{ImksError, ImksResult};
use crate::socket::packet::Args;

/// Events with the ids under which answers are expected, in their order, until it is known whose they are.
#[derive(Debug, Default)]
pub(super) struct Early {
    events: Vec<(Option<u64>, Args)>,
    bytes: usize,
}

impl Early {
    /// Keeps an event.
    ///
    /// # Errors
    /// [`ImksError::LimitReached`] if there are too many.
    pub(super) fn push(&mut self, id: Option<u64>, args: Args) -> ImksResult<()> {
        self.bytes = self.bytes.saturating_add(args.bytes());
        if self.events.len() == EARLY_EVENTS_MAX || self.bytes > EARLY_BYTES_MAX {
            return Err(ImksError::LimitReached("events before the answer to CONNECT"));
        }
        self.events.push((id, args));
        Ok(())
    }

    /// Takes all events.
    pub(super) fn take(&mut self) -> Vec<(Option<u64>, Args)> {
        std::mem::take(self).events
    }
}

/// The maximum number of events that a server may send before it answers a CONNECT. One more ends the connection.
const EARLY_EVENTS_MAX: usize = 16_384;

/// The maximum number of bytes of the events that a server may send before it answers a CONNECT. More end the
/// connection.
const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;

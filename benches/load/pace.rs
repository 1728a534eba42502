//! Moments at which something is due, evenly spread.

use std::time::{Duration, Instant};

/// Shorter waits end too late: the kernel waits for whole milliseconds.
const SHORTEST: Duration = Duration::from_millis(2);

/// A rate, from its first moment on.
pub struct Pace {
    start: Instant,
    rate: f64,
    taken: u64,
}

impl Pace {
    pub fn new(rate: f64) -> Self {
        Self { start: Instant::now(), rate, taken: 0 }
    }

    /// Takes the next thing that is due by now: its number, and when it was due.
    pub fn next_due(&mut self) -> Option<(u64, Instant)> {
        let due = self.due();
        if due > Instant::now() {
            return None;
        }
        self.taken += 1;
        Some((self.taken - 1, due))
    }

    /// Returns how long to wait for the network: not beyond the next moment, and not at all shortly before it.
    pub fn wait(&self) -> Duration {
        self.due().saturating_duration_since(Instant::now()).saturating_sub(SHORTEST)
    }

    fn due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.taken as f64 / self.rate)
    }
}

//! A circuit breaker: after several failures in a row, calls fail at once instead of waiting for a core that
//! is down, until a trial call succeeds. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The state of the breaker: closed, so that calls pass, or open until a time.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether a call may pass at `now`. While the breaker is open, one trial call may pass per pause.
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now + PAUSE);
                true
            }
            None => true,
        }
    }

    /// Records that the core answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Records that the core did not answer, or is unavailable.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.open_until = Some(now + PAUSE);
        }
    }
}

/// The number of failures in a row that opens the breaker.
const FAILURES_MAX: u32 = 5;
/// How long calls fail at once before a trial call may pass. Short, because one call to a core that is still
/// down is cheap.
const PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_failures_calls_fail_at_once_and_one_is_let_through_to_try() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..5 {
            assert!(breaker.admit(start));
            breaker.failed(start);
        }
        assert!(!breaker.admit(start));
        let later = start + PAUSE;
        assert!(breaker.admit(later), "the one that tries");
        assert!(!breaker.admit(later), "the others wait for its outcome");
        breaker.succeeded();
        assert!(breaker.admit(later));
    }

    #[test]
    fn failures_with_successes_between_do_not_open_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..20 {
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(breaker.admit(now));
    }
}

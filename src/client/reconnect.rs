//! When a client tries again: the pause before each attempt, and how many attempts there are.

use std::time::Duration;

/// The pauses between attempts to connect. What follows a pause that failed may depend on it, and on chance, so
/// that the clients of a server that restarted do not come back all at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconnect {
    strategy: Strategy,
    attempts_max: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Strategy {
    Never,
    Fixed(Duration),
    Exponential { first: Duration, factor: f64, cap: Duration, jitter: f64 },
    DecorrelatedJitter { base: Duration, cap: Duration },
}

impl Reconnect {
    /// A client that does not reconnect.
    pub const fn never() -> Self {
        Self { strategy: Strategy::Never, attempts_max: None }
    }

    /// One pause, before every attempt.
    pub const fn fixed(pause: Duration) -> Self {
        Self { strategy: Strategy::Fixed(pause), attempts_max: None }
    }

    /// Pauses that grow by `factor` from `first` up to `cap`, each between half and one and a half of its length.
    pub const fn exponential(first: Duration, factor: f64, cap: Duration) -> Self {
        let strategy = Strategy::Exponential { first, factor, cap, jitter: JITTER };
        Self { strategy, attempts_max: None }
    }

    /// Pauses of random length between `base` and three times the one before, up to `cap`.
    pub const fn decorrelated_jitter(base: Duration, cap: Duration) -> Self {
        Self { strategy: Strategy::DecorrelatedJitter { base, cap }, attempts_max: None }
    }

    /// Sets the part of an exponential pause that is left to chance, from 0 to 1. The default is 0.5.
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        if let Strategy::Exponential { jitter, .. } = &mut self.strategy {
            *jitter = part.clamp(0.0, 1.0);
        }
        self
    }

    /// Sets after how many failed attempts in a row the client gives up. Without it, it never does.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts);
        self
    }

    /// Returns the pause before an attempt, the first being 1, or `None` if there is no such attempt.
    /// `previous` is the pause before the attempt that failed, and `random` is from 0 to 1.
    pub(crate) fn pause(&self, attempt: u32, previous: Duration, random: f64) -> Option<Duration> {
        if self.attempts_max.is_some_and(|max| attempt > max) {
            return None;
        }
        match self.strategy {
            Strategy::Never => None,
            Strategy::Fixed(pause) => Some(pause),
            Strategy::Exponential { first, factor, cap, jitter } => {
                let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
                let grown = first.as_secs_f64() * factor.powi(exponent);
                let shifted = grown.min(cap.as_secs_f64()) * (1.0 + jitter * (2.0 * random - 1.0));
                Some(seconds(shifted).min(cap))
            }
            Strategy::DecorrelatedJitter { base, cap } => {
                let upper = previous.max(base).as_secs_f64() * 3.0;
                let base = base.as_secs_f64();
                Some(seconds(base + (upper - base) * random).min(cap))
            }
        }
    }
}

/// The pauses of the stock client: from one second to five, each up to half longer or shorter.
impl Default for Reconnect {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), 2.0, Duration::from_secs(5))
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// The part of a pause that is left to chance, as in the stock client.
const JITTER: f64 = 0.5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_up_to_the_cap_and_chance_moves_them_by_half() {
        let reconnect = Reconnect::exponential(SECOND, 2.0, 5 * SECOND);
        let pause = |attempt, random| reconnect.pause(attempt, SECOND, random).unwrap().as_secs_f64();
        assert_eq!([1, 2, 3].map(|attempt| pause(attempt, 0.5)), [1.0, 2.0, 4.0]);
        assert_eq!((pause(1, 0.0), pause(1, 1.0)), (0.5, 1.5));
        assert_eq!((pause(90, 0.0), pause(90, 1.0)), (2.5, 5.0));
    }

    #[test]
    fn who_gives_up_gives_up_after_as_many_attempts_as_were_asked_for() {
        let reconnect = Reconnect::fixed(SECOND).attempts_max(2);
        let pauses = [1, 2, 3].map(|attempt| reconnect.pause(attempt, SECOND, 0.5));
        assert_eq!(pauses, [Some(SECOND), Some(SECOND), None]);
        assert_eq!(Reconnect::never().pause(1, SECOND, 0.5), None);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_the_cap(attempt in 1..u32::MAX, previous in 0..u64::MAX, random in 0.0..=1.0) {
            let previous = Duration::from_millis(previous);
            for reconnect in [
                Reconnect::exponential(SECOND, 1.7, 30 * SECOND),
                Reconnect::exponential(SECOND, f64::MAX, 30 * SECOND).jitter(2.0),
                Reconnect::decorrelated_jitter(SECOND, 30 * SECOND),
            ] {
                prop_assert!(reconnect.pause(attempt, previous, random).unwrap() <= 30 * SECOND);
            }
        }
    }
}

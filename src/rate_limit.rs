//! Rate limits as token buckets. All functions are pure: `now` is an argument, and nothing waits.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A rate limit: an average per second and a burst. If either is 0, there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The average number per second.
    pub per_second: u32,
    /// The number allowed at once after a pause.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const OFF: Self = Self { per_second: 0, burst: 0 };

    /// Creates a rate of `burst` at once and `per_second` on average.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst }
    }

    /// Whether this rate limits nothing.
    pub fn is_off(&self) -> bool {
        self.burst == 0 || self.per_second == 0
    }

    /// Returns the time in which one token is earned.
    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

/// A rate limit that can be replaced while it is in use.
#[derive(Debug)]
pub struct CurrentRate(AtomicU64);

impl CurrentRate {
    /// Creates the limit with its first rate.
    pub fn new(rate: Rate) -> Self {
        Self(AtomicU64::new(Self::packed(rate)))
    }

    /// Returns the rate of now.
    pub fn get(&self) -> Rate {
        let packed = self.0.load(Ordering::Relaxed);
        // Each half holds one number.
        Rate::new((packed >> 32) as u32, packed as u32)
    }

    /// Replaces the rate. Buckets keep what has been taken from them.
    pub fn set(&self, rate: Rate) {
        self.0.store(Self::packed(rate), Ordering::Relaxed);
    }

    fn packed(rate: Rate) -> u64 {
        u64::from(rate.per_second) << 32 | u64::from(rate.burst)
    }
}

/// A token bucket that fills over time (the generic cell rate algorithm).
///
/// It stores only the time at which it will be full again, so a full bucket needs no memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one token, or returns the time until one is available.
    pub fn take(&mut self, rate: &Rate, now: Instant) -> Result<(), Duration> {
        if rate.is_off() {
            return Ok(());
        }
        let capacity = rate.interval() * rate.burst;
        // What a slower rate has emptied is empty, and does not wait for what that one would still have to earn.
        self.full_at = self.full_at.map(|at| at.min(now + capacity));
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + rate.interval();
        let missing = full_at.duration_since(now);
        if missing > capacity {
            return Err(missing - capacity);
        }
        self.full_at = Some(full_at);
        Ok(())
    }

    /// Removes tokens that were taken elsewhere, as far as there are any.
    pub fn spend(&mut self, rate: &Rate, count: u32, now: Instant) {
        let interval = rate.interval();
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + interval * count.min(rate.burst);
        self.full_at = Some(full_at.min(now + interval * rate.burst));
    }

    /// Whether the bucket is full, and so equal to a new one.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

/// A bound on the lines of the log that strangers can cause: a flood of them may not fill the disk.
#[derive(Debug)]
pub struct LineLimit {
    rate: Rate,
    /// What may be logged, and how many lines were left out since the last one.
    state: Mutex<(Bucket, u64)>,
}

impl LineLimit {
    /// Creates the limit.
    pub fn new(rate: Rate) -> Self {
        Self { rate, state: Mutex::default() }
    }

    /// Returns how many lines were left out before this one; `None` if this one is left out too.
    pub fn next(&self, now: Instant) -> Option<u64> {
        let (bucket, unlogged) = &mut *self.state.lock();
        if bucket.take(&self.rate, now).is_err() {
            *unlogged += 1;
            return None;
        }
        Some(std::mem::take(unlogged))
    }
}

/// What tells of something that lasts: once in a while, and how often it has happened since it was last told.
#[derive(Debug, Default)]
pub struct Reminder {
    untold: u64,
    told: Option<Instant>,
}

impl Reminder {
    /// Counts an occurrence, and returns how many are to be told now.
    pub fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < REMINDED) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// How often something that lasts is told.
const REMINDED: Duration = Duration::from_secs(10);

/// One bucket per key, for keys that are not bound to a connection, such as a user or a user in a channel.
#[derive(Debug)]
pub struct Limiter<K: Eq + Hash> {
    rate: CurrentRate,
    buckets: DashMap<K, Bucket>,
}

impl<K: Eq + Hash> Limiter<K> {
    /// Creates a limiter in which all buckets are full.
    pub fn new(rate: Rate) -> Self {
        Self { rate: CurrentRate::new(rate), buckets: DashMap::new() }
    }

    /// Takes one token from the bucket of `key`, or returns the time to wait.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let rate = self.rate.get();
        if rate.is_off() {
            return Ok(());
        }
        self.buckets.entry(key).or_default().take(&rate, now)
    }

    /// Removes tokens that were taken elsewhere from the bucket of `key`.
    pub fn spend(&self, key: K, count: u32, now: Instant) {
        let rate = self.rate.get();
        if !rate.is_off() {
            self.buckets.entry(key).or_default().spend(&rate, count, now);
        }
    }

    /// Whether nothing is limited.
    pub fn is_off(&self) -> bool {
        self.rate.get().is_off()
    }

    /// Replaces the rate. Buckets keep what has been taken from them.
    pub fn set_rate(&self, rate: Rate) {
        self.rate.set(rate);
    }

    /// Removes full buckets, which are equal to new ones. Call this periodically.
    pub fn sweep(&self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    /// Returns the number of keys with a stored bucket.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no bucket is stored.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

/// Returns the network within which one subscriber can choose addresses: an IPv4 address, or an IPv6 network with a
/// prefix of 64 bits.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_then_one_per_interval_and_the_wait_that_is_told_is_exact() {
        let (rate, start) = (Rate::new(10, 3), Instant::now());
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(&rate, start), Ok(()));
        }
        let wait = bucket.take(&rate, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(bucket.take(&rate, start + wait - Duration::from_nanos(1)).is_err());
        assert_eq!(bucket.take(&rate, start + wait), Ok(()));
    }

    #[test]
    fn a_rate_that_is_replaced_counts_at_once() {
        let (limiter, now) = (Limiter::new(Rate::new(1, 1)), Instant::now());
        assert!(limiter.take("alice", now).is_ok() && limiter.take("alice", now).is_err());
        let rate = Rate::new(u32::MAX, 7);
        limiter.set_rate(rate);
        assert_eq!(limiter.rate.get(), rate);
        limiter.set_rate(Rate::new(1, 3));
        assert!(limiter.take("alice", now).is_ok() && limiter.take("alice", now).is_ok());
        assert!(limiter.take("alice", now).is_err());
    }

    #[test]
    fn a_bucket_that_a_slower_rate_has_emptied_waits_for_one_token_of_the_new_rate() {
        let (slow, fast, now) = (Rate::new(1, 100), Rate::new(100, 100), Instant::now());
        let mut bucket = Bucket::default();
        assert!((0..100).all(|_| bucket.take(&slow, now).is_ok()));
        let wait = Duration::from_millis(10);
        assert_eq!(bucket.take(&fast, now), Err(wait));
        assert_eq!(bucket.take(&fast, now + wait), Ok(()));
    }

    #[test]
    fn what_was_taken_elsewhere_is_missing_here_and_more_than_there_is_costs_no_more() {
        let (limiter, now) = (Limiter::new(Rate::new(1, 3)), Instant::now());
        limiter.spend("alice", 2, now);
        assert!(limiter.take("alice", now).is_ok());
        assert_eq!(limiter.take("alice", now), Err(Duration::from_secs(1)));
        limiter.spend("alice", u32::MAX, now);
        assert_eq!(limiter.take("alice", now), Err(Duration::from_secs(1)));
        limiter.set_rate(Rate::OFF);
        limiter.spend("bob", 1, now);
        assert!(limiter.is_off() && limiter.len() == 1);
    }

    #[test]
    fn a_line_says_how_many_were_left_out_before_it() {
        let (lines, now) = (LineLimit::new(Rate::new(1, 2)), Instant::now());
        assert_eq!(
            [lines.next(now), lines.next(now), lines.next(now), lines.next(now)],
            [Some(0), Some(0), None, None]
        );
        let later = now + Duration::from_secs(1);
        assert_eq!([lines.next(later), lines.next(later)], [Some(2), None]);
    }

    #[test]
    fn a_refusal_costs_nothing() {
        let (rate, start) = (Rate::new(1, 1), Instant::now());
        let mut bucket = Bucket::default();
        assert!(bucket.take(&rate, start).is_ok());
        for _ in 0..100 {
            assert!(bucket.take(&rate, start).is_err());
        }
        assert!(bucket.take(&rate, start + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_limit_that_is_off_never_refuses_and_remembers_nobody() {
        let limiter = Limiter::new(Rate::OFF);
        assert!((0..1_000).all(|_| limiter.take("alice", Instant::now()).is_ok()));
        assert!(limiter.is_empty());
    }

    #[test]
    fn keys_do_not_share_and_are_forgotten_when_their_bucket_is_full() {
        let (limiter, start) = (Limiter::new(Rate::new(1, 1)), Instant::now());
        assert!(limiter.take("alice", start).is_ok());
        assert!(limiter.take("alice", start).is_err());
        assert!(limiter.take("bob", start).is_ok());
        limiter.sweep(start);
        assert_eq!(limiter.len(), 2);
        limiter.sweep(start + Duration::from_secs(1));
        assert!(limiter.is_empty());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate_times_time(
            per_second in 1_u32..200, burst in 1_u32..50,
            pauses in proptest::collection::vec(0_u64..100_000, 1..300),
        ) {
            let (rate, start) = (Rate::new(per_second, burst), Instant::now());
            let (mut bucket, mut now, mut taken) = (Bucket::default(), start, 0_u128);
            for pause in pauses {
                now += Duration::from_micros(pause);
                taken += u128::from(bucket.take(&rate, now).is_ok());
                let interval = rate.interval().as_nanos();
                let earned = now.duration_since(start).as_nanos() / interval;
                prop_assert!(taken <= u128::from(burst) + earned);
            }
        }
    }
}

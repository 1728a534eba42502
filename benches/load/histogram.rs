//! Latencies in log-linear buckets: 3 % wide, no allocation per sample.

use std::time::Duration;

/// Linear steps per power of two.
const STEPS: u32 = 32;
const STEP_BITS: u32 = STEPS.ilog2();
const BUCKETS: usize = (64 * STEPS) as usize;

/// Counts of durations, in microseconds.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, duration: Duration) {
        self.buckets[bucket(duration.as_micros() as u64)] += 1;
        self.count += 1;
    }

    /// Upper edge of the bucket that holds the given share of the samples, in milliseconds; 0 without samples.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return edge(index) as f64 / 1000.0;
            }
        }
        0.0
    }
}

fn bucket(us: u64) -> usize {
    if us < u64::from(STEPS) {
        return us as usize;
    }
    let shift = us.ilog2() - STEP_BITS;
    ((shift + 1) * STEPS + ((us >> shift) as u32 - STEPS)) as usize
}

fn edge(bucket: usize) -> u64 {
    let (group, step) = (bucket as u32 / STEPS, bucket as u32 % STEPS);
    if group == 0 { u64::from(step) } else { (u64::from(STEPS + step + 1) << (group - 1)) - 1 }
}

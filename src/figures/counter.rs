//! Counters with one writer: adding is a load and a store, without a bus lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Grows only. One thread at a time adds; anyone reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    }

    /// For what several threads count, and seldom.
    pub fn add_shared(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by size.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than bounds: the last is for whatever is longer.
    buckets: [Counter; BOUNDS_MICROS.len() + 1],
    sum_nanos: Counter,
}

/// A histogram as it was when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    pub sum: Duration,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS_MICROS.iter().position(|bound| nanos <= bound * 1000).unwrap_or(BOUNDS_MICROS.len());
        self.buckets[place].add(1);
        self.sum_nanos.add(nanos);
    }

    pub fn read(&self) -> Distribution {
        let mut buckets = [0; BOUNDS_MICROS.len() + 1];
        buckets.iter_mut().zip(&self.buckets).for_each(|(read, bucket)| *read = bucket.read());
        Distribution { buckets, sum: Duration::from_nanos(self.sum_nanos.read()) }
    }
}

impl Distribution {
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum += other.sum;
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Upper ends of the buckets, inclusive, in microseconds.
pub const BOUNDS_MICROS: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let histogram = Histogram::default();
        let spans = [0, 50, 51, 1_000, 30_000_000, 30_000_001];
        spans.iter().for_each(|&micros| histogram.observe(Duration::from_micros(micros)));
        let read = histogram.read();
        let filled: Vec<(usize, u64)> = read.buckets.iter().copied().enumerate().filter(|(_, n)| *n > 0).collect();
        assert_eq!(filled, [(0, 2), (1, 1), (4, 1), (17, 1), (18, 1)]);
        assert_eq!((read.count(), read.sum), (6, Duration::from_micros(spans.iter().sum())));
    }
}

//! How long things took: counts by size, exact to 1.6 %.

use std::time::Duration;

const SUB_BITS: u32 = 6;
const SUBS: u64 = 1 << SUB_BITS;
/// Everything from about 73 minutes on counts as that.
const TOP_BITS: u32 = 42;
const BUCKETS: usize = ((TOP_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

/// Counts of durations.
#[derive(Clone)]
pub(crate) struct Histogram {
    /// Empty until the first.
    counts: Vec<u32>,
    count: u64,
    max: Duration,
}

impl Histogram {
    pub(crate) const fn new() -> Self {
        Self {
            counts: Vec::new(),
            count: 0,
            max: Duration::ZERO,
        }
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.record_all(took, 1);
    }

    /// The same for so many requests that all took this long.
    pub(crate) fn record_all(&mut self, took: Duration, n: u32) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts[bucket(took)] += n;
        self.count += u64::from(n);
        self.max = self.max.max(took);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// What this part of all durations was not above; zero if there are none.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let rank = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (n, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return Duration::from_nanos(top_of(n as u64)).min(self.max);
            }
        }
        Duration::ZERO
    }
}

fn bucket(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos())
        .unwrap_or(u64::MAX)
        .min((1 << TOP_BITS) - 1);
    let shift = (64 - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (u64::from(shift) * SUBS + (nanos >> shift)) as usize
}

/// The largest duration of a bucket.
fn top_of(bucket: u64) -> u64 {
    let shift = (bucket / SUBS).saturating_sub(1);
    ((bucket - shift * SUBS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_a_bucket_that_is_not_wide() {
        for nanos in (0..5000)
            .chain((0..41).map(|n| (1 << n) + 7))
            .chain([1 << 42, u64::MAX])
        {
            let n = bucket(Duration::from_nanos(nanos));
            assert!(n < BUCKETS, "{nanos}");
            let nanos = nanos.min((1 << TOP_BITS) - 1);
            let top = top_of(n as u64);
            assert!(
                top >= nanos && top as f64 <= nanos as f64 * 1.016,
                "{nanos} {top}"
            );
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::new();
        (1..=100).for_each(|n| histogram.record(Duration::from_micros(n)));
        let near = |part: f64, micros: f64| {
            (histogram.quantile(part).as_nanos() as f64 / 1000.0 / micros - 1.0).abs() < 0.016
        };
        assert!(near(0.5, 50.0) && near(0.99, 99.0) && near(0.01, 1.0));
        assert_eq!(histogram.quantile(1.0), Duration::from_micros(100));
        assert_eq!(histogram.count(), 100);
        assert_eq!(Histogram::new().quantile(0.5), Duration::ZERO);
    }
}

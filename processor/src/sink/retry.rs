//! The one retry policy of every sink: for ever, with capped backoff, loud at first and then at
//! intervals.
//!
//! Nothing here gives up: what cannot be written waits, and so do the offsets it was made from.
//! What a peer refuses *for what it is* never comes here; each sink names those refusals itself.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tracing::{info, warn};

/// First wait: long enough for a dropped connection to be replaced at once, short for a person.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait: after an outage ends, work goes on within this time.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// An outage that lasts is logged again after this time.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// An outage of one sink: counts failures, spaces the retries and says what happens.
#[derive(Debug)]
pub struct Outage {
    sink: &'static str,
    retries: Counter,
    up: Gauge,
    failures: u32,
    since: Option<Instant>,
    logged_at: Option<Instant>,
}

impl Outage {
    /// Returns the state of a sink that is taken to work until it fails: `up` is 1.
    #[must_use]
    pub fn new(sink: &'static str, retries: Counter, up: Gauge) -> Self {
        up.set(1);
        Self {
            sink,
            retries,
            up,
            failures: 0,
            since: None,
            logged_at: None,
        }
    }

    /// Notes a failed attempt and returns how long to wait before the next.
    pub fn failed(&mut self, now: Instant, error: &dyn fmt::Display) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.retries.inc();
        self.up.set(0);
        let since = *self.since.get_or_insert(now);
        if self
            .logged_at
            .is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL)
        {
            self.logged_at = Some(now);
            warn!(
                sink = self.sink,
                failures = self.failures,
                down_seconds = now.duration_since(since).as_secs(),
                %error,
                "cannot write; nothing is lost, offsets wait and the write is repeated until it succeeds"
            );
        }
        jittered(backoff(self.failures))
    }

    /// Notes that the sink works.
    pub fn succeeded(&mut self, now: Instant) {
        self.up.set(1);
        if let Some(since) = self.since.take() {
            info!(
                sink = self.sink,
                failures = self.failures,
                down_seconds = now.duration_since(since).as_secs(),
                "writes again"
            );
            self.failures = 0;
            self.logged_at = None;
        }
    }
}

/// Returns the wait after the given number of failures in a row, before jitter.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_FIRST
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MAX)
}

/// Takes off up to half of `wait`, so that replicas do not come back all at once.
fn jittered(wait: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 512;
    wait - wait.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let waits: Vec<_> = (1..=8).map(|it| backoff(it).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        for _ in 0..100 {
            let wait = jittered(BACKOFF_MAX);
            assert!(wait > BACKOFF_MAX / 2 - Duration::from_millis(1) && wait <= BACKOFF_MAX);
        }
    }

    #[test]
    fn an_outage_ends_with_the_first_success() {
        let (retries, up) = (Counter::default(), Gauge::default());
        let mut outage = Outage::new("store", retries.clone(), up.clone());
        let now = Instant::now();
        outage.succeeded(now);
        assert_eq!(up.get(), 1);
        assert!(outage.failed(now, &"gone") <= BACKOFF_FIRST);
        assert!(outage.failed(now, &"gone") > BACKOFF_FIRST / 2);
        assert_eq!((up.get(), retries.get()), (0, 2));
        outage.succeeded(now);
        assert_eq!(up.get(), 1);
        assert!(outage.failed(now, &"gone") <= BACKOFF_FIRST);
    }
}

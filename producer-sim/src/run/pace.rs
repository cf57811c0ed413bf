//! When the next event may go, given its time and the present; and what to do when it is too late.
//!
//! Pure: the present time is an argument.

use std::time::Duration;

/// An event later than this is not hurried after: everything to come moves instead, so that events
/// keep the time of their writing after the broker was away or slow.
const BEHIND_MAX_US: i64 = 1_000_000;
/// Longest single wait, so that the end of `--duration` and delivery reports are noticed in time.
const WAIT_MAX_US: i64 = 100_000;
/// Shortest wait: events due sooner go together, as waking up for each would cost more than sending.
const WAIT_MIN_US: i64 = 1_000;

/// Keeps the pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    delay_us: i64,
    skipped_us: i64,
}

impl Pace {
    /// Returns how long to wait before asking again; `None` if the event may go.
    pub(super) fn wait(&mut self, now_us: i64, due_us: i64) -> Option<Duration> {
        if due_us > now_us {
            let wait_us = (due_us - now_us).clamp(WAIT_MIN_US, WAIT_MAX_US);
            return Some(Duration::from_micros(wait_us.unsigned_abs()));
        }
        let behind_us = now_us - due_us;
        if behind_us > BEHIND_MAX_US {
            self.delay_us += behind_us;
            self.skipped_us += behind_us;
        }
        None
    }

    /// Returns by how much everything to come has to move, in microseconds.
    pub(super) fn take_delay(&mut self) -> i64 {
        std::mem::take(&mut self.delay_us)
    }

    /// Returns the time skipped since the last call.
    pub(super) fn take_skipped(&mut self) -> Duration {
        Duration::from_micros(std::mem::take(&mut self.skipped_us).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_on_both_sides() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(0, 1), Some(Duration::from_millis(1)));
        assert_eq!(pace.wait(0, 20_000), Some(Duration::from_millis(20)));
        assert_eq!(pace.wait(0, 9_000_000), Some(Duration::from_millis(100)));
        assert_eq!(pace.wait(5, 5), None);
    }

    #[test]
    fn a_small_lag_is_caught_up_and_a_large_one_is_skipped() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(900_000, 0), None);
        assert_eq!(pace.take_delay(), 0);
        assert_eq!(pace.wait(7_000_000, 0), None);
        assert_eq!(pace.take_delay(), 7_000_000);
        assert_eq!(pace.take_delay(), 0);
        assert_eq!(pace.take_skipped(), Duration::from_secs(7));
    }
}

//! How far a file is from being sorted by time: a line whose window is final is dropped as late, so
//! the user of a file that runs backwards has to hear of it.

use crate::event::EventTime;

/// Counts the steps back in time that are larger than the lateness windows allow.
#[derive(Clone, Copy, Debug)]
pub struct TimeOrder {
    lateness_ms: i64,
    previous: Option<EventTime>,
    /// Events seen.
    pub events: u64,
    /// Smallest event time.
    pub first: Option<EventTime>,
    /// Largest event time.
    pub last: Option<EventTime>,
    /// Events more than the lateness behind the largest time before them: late, if their window
    /// ended by then.
    pub beyond_lateness: u64,
    /// Events earlier than the one before them, by however little.
    pub steps_back: u64,
    /// Furthest that an event lay behind the largest time before it, in milliseconds.
    pub furthest_back_ms: i64,
}

impl TimeOrder {
    /// Returns counters for windows that allow `lateness_ms` milliseconds.
    #[must_use]
    pub const fn new(lateness_ms: i64) -> Self {
        Self {
            lateness_ms,
            previous: None,
            events: 0,
            first: None,
            last: None,
            beyond_lateness: 0,
            steps_back: 0,
            furthest_back_ms: 0,
        }
    }

    /// Takes the time of the next event in file order.
    pub fn observe(&mut self, time: EventTime) {
        self.events += 1;
        let largest = self.last.unwrap_or(time);
        let back_ms = largest.as_millis() - time.as_millis();
        self.beyond_lateness += u64::from(back_ms > self.lateness_ms);
        self.furthest_back_ms = self.furthest_back_ms.max(back_ms);
        self.steps_back += u64::from(self.previous.is_some_and(|previous| time < previous));
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(largest.max(time));
        self.previous = Some(time);
    }

    /// Returns whether the file looks sorted newest first, as exports often are: more than half
    /// of its lines are earlier than the line before.
    #[must_use]
    pub const fn is_descending(&self) -> bool {
        self.events > 2 && self.steps_back > self.events / 2
    }

    /// Returns what to tell the user, or `None` if no event is beyond the lateness.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        if self.beyond_lateness == 0 {
            return None;
        }
        let share = 100.0 * self.beyond_lateness as f64 / self.events as f64;
        let advice = if self.is_descending() {
            "the file looks sorted newest first: sort it by timestamp"
        } else {
            "sort the file by timestamp, or allow more lateness"
        };
        Some(format!(
            "{} of {} lines ({share:.1} %) lie more than {} s behind a line before them, the \
             furthest {:.1} s, and are dropped where their window has ended; {advice}",
            self.beyond_lateness,
            self.events,
            self.lateness_ms as f64 / 1e3,
            self.furthest_back_ms as f64 / 1e3,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(times_ms: &[i64]) -> TimeOrder {
        let mut order = TimeOrder::new(2_000);
        for time_ms in times_ms {
            order.observe(EventTime::from_millis(*time_ms).unwrap());
        }
        order
    }

    #[test]
    fn steps_within_the_lateness_are_not_late() {
        let order = order(&[0, 5_000, 3_000, 2_999, 6_000]);
        assert_eq!(order.beyond_lateness, 1);
        assert_eq!(order.steps_back, 2);
        assert_eq!(order.furthest_back_ms, 2_001);
        assert_eq!(order.first.map(EventTime::as_millis), Some(0));
        assert_eq!(order.last.map(EventTime::as_millis), Some(6_000));
        assert!(!order.is_descending());
    }

    #[test]
    fn a_descending_file_is_named_as_such() {
        let order = order(&[90_000, 60_000, 30_000, 0]);
        assert!(order.is_descending());
        assert_eq!(order.beyond_lateness, 3);
        let warning = order.warning().unwrap();
        assert!(
            warning.starts_with("3 of 4 lines (75.0 %) lie more than 2 s behind"),
            "{warning}"
        );
        assert!(warning.contains("newest first"), "{warning}");
    }

    #[test]
    fn a_sorted_file_has_no_warning() {
        assert_eq!(order(&[1, 1, 2, 3]).warning(), None);
        assert_eq!(order(&[]).warning(), None);
    }
}

//! The run as a picture: time cut into equal buckets, each with the largest severity in it.
//!
//! However long the run, the picture has as many points, and no peak is lost.

use super::{Kept, Truth};
use crate::event::EventTime;

/// Buckets of the picture: about one per pixel column.
pub(super) const BUCKETS: usize = 720;

/// A stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bucket {
    /// Largest severity of a window that starts in it.
    pub(super) severity: f64,
    /// Windows anomalous by their labels, and of these those that alarmed.
    pub(super) anomalous: u64,
    pub(super) found: u64,
    /// Normal windows that alarmed.
    pub(super) false_alarms: u64,
    /// Windows without a truth that alarmed.
    pub(super) unjudged: u64,
}

/// A run in [`BUCKETS`] buckets, or fewer if it has fewer windows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timeline {
    pub(super) start: EventTime,
    pub(super) end: EventTime,
    pub(super) buckets: Vec<Bucket>,
}

impl Timeline {
    pub(super) fn of(windows: &[Kept], (start, end): (EventTime, EventTime), each_ms: i64) -> Self {
        let span = i128::from((end.as_millis() - start.as_millis()).max(1));
        let slots = usize::try_from(span / i128::from(each_ms.max(1))).unwrap_or(BUCKETS);
        let count = slots.clamp(1, BUCKETS);
        let mut buckets = vec![Bucket::default(); count];
        for window in windows {
            let at = i128::from(window.start.as_millis() - start.as_millis());
            let place = usize::try_from(at * count as i128 / span).unwrap_or(0);
            let bucket = &mut buckets[place.min(count - 1)];
            bucket.severity = bucket.severity.max(window.severity);
            match window.truth {
                Truth::Anomalous => {
                    bucket.anomalous += 1;
                    bucket.found += u64::from(window.alarmed);
                }
                Truth::Normal | Truth::Empty => bucket.false_alarms += u64::from(window.alarmed),
                Truth::Unlabelled => bucket.unjudged += u64::from(window.alarmed),
            }
        }
        Self {
            start,
            end,
            buckets,
        }
    }
}

//! Incidents: runs of anomalous windows of a stream, and how long it took to tell of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Kept, Truth, ratio};
use crate::event::EventTime;

/// How many incidents were found, and how fast.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incidents {
    /// Runs of anomalous windows of a stream that follow each other without a gap.
    pub count: u64,
    /// Of these, runs in which a window alarmed.
    pub found: u64,
    /// Share that was found.
    pub recall: Option<f64>,
    /// Median time from the first anomalous line to the first alarm, early or at the end of its
    /// window, in seconds, over those found.
    pub median_s: Option<f64>,
    /// 95 of 100 were told of within so many seconds.
    pub p95_s: Option<f64>,
}

/// One incident.
#[derive(Clone, Debug)]
pub(super) struct Incident {
    /// Starts of its windows.
    windows: Vec<EventTime>,
    first_line: EventTime,
    told: Option<EventTime>,
}

impl Incident {
    fn delay_s(&self) -> Option<f64> {
        let told = self.told?;
        // An alarm may come for another reason before the first line that is labelled.
        let delay_ms = (told.as_millis() - self.first_line.as_millis()).max(0);
        Some(delay_ms as f64 / 1_000.0)
    }

    /// Returns the kinds of anomaly that its windows name.
    pub(super) fn types(&self, types: &BTreeMap<EventTime, BTreeSet<usize>>) -> BTreeSet<usize> {
        let named = self.windows.iter().filter_map(|start| types.get(start));
        named.flatten().copied().collect()
    }
}

/// Returns the incidents of `windows`, by stream and time.
pub(super) fn incidents(windows: &[Kept]) -> Vec<Incident> {
    let mut anomalous: Vec<&Kept> = windows
        .iter()
        .filter(|window| window.truth == Truth::Anomalous)
        .collect();
    anomalous.sort_unstable_by_key(|window| (window.stream, window.start, window.end));
    anomalous
        .chunk_by(|a, b| a.stream == b.stream && b.start <= a.end)
        .map(|run| Incident {
            windows: run.iter().map(|window| window.start).collect(),
            first_line: run[0].first_line,
            told: run
                .iter()
                .find(|window| window.alarmed)
                .map(|window| window.told),
        })
        .collect()
}

/// Adds up incidents.
pub(super) fn summary<'a>(incidents: impl Iterator<Item = &'a Incident>) -> Incidents {
    let (mut count, mut delays) = (0, Vec::new());
    for incident in incidents {
        count += 1;
        delays.extend(incident.delay_s());
    }
    delays.sort_unstable_by(f64::total_cmp);
    let found = delays.len() as u64;
    Incidents {
        count,
        found,
        recall: ratio(found as f64, count as f64),
        median_s: median(&delays),
        p95_s: nearest_rank(&delays, 95),
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// Returns the smallest value that `percent` of 100 do not exceed.
fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_textbook() {
        let twenty: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(median(&twenty), Some(10.5));
        assert_eq!(median(&twenty[..3]), Some(2.0));
        assert_eq!(nearest_rank(&twenty, 95), Some(19.0));
        assert_eq!(nearest_rank(&twenty[..1], 95), Some(1.0));
        assert_eq!((median(&[]), nearest_rank(&[], 95)), (None, None));
    }
}

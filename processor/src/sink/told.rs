//! What an alarm says of its window: the same in the file and in table `alarms`, whichever row brings
//! it. An alarm that came before its window was full goes on saying what it said then.

use super::summary::{Summary, int};
use crate::{
    event::{EventTime, NextOffset},
    model::{Explanation, ScoredWindow},
};

/// An alarm, in the words of its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) anomaly_score: f64,
    pub(crate) severity: f64,
    pub(crate) log_count: i32,
    /// `ERROR` lines.
    pub(crate) error_count: i32,
    /// `ERROR` and `FATAL` lines.
    pub(crate) critical_count: i32,
    /// `error_count / log_count`.
    pub(crate) error_rate: f64,
    /// The clock decided, and the final row may disagree.
    pub(crate) provisional: bool,
    /// Event time at which it came, if that was before the window was full.
    pub(crate) early_at: Option<EventTime>,
    /// One past the last record it rests on.
    pub(crate) next: Option<NextOffset>,
    pub(crate) explanation: &'a Explanation,
    pub(crate) samples: &'a [Box<str>],
}

impl<'a> Told<'a> {
    /// Returns what the alarm of a window says.
    pub(crate) fn of(scored: &'a ScoredWindow) -> Self {
        let (window, verdict) = (&scored.window, &scored.verdict);
        let counts = Summary::of(scored);
        let full = Self {
            anomaly_score: verdict.anomaly_score,
            severity: verdict.severity,
            log_count: counts.log_count,
            error_count: counts.error_count,
            critical_count: counts.critical_count,
            error_rate: counts.error_rate,
            provisional: counts.provisional,
            early_at: None,
            next: window.span.map(|span| span.next),
            explanation: &scored.explanation,
            samples: &window.content.samples,
        };
        let Some(early) = &scored.early else {
            return full;
        };
        Self {
            anomaly_score: early.anomaly_score,
            severity: early.severity,
            log_count: int(early.log_count),
            error_count: int(early.error_count),
            critical_count: int(early.critical_count),
            error_rate: f64::from(early.error_count) / f64::from(early.log_count.max(1)),
            provisional: false,
            early_at: Some(early.at),
            next: Some(early.next),
            explanation: &early.explanation,
            samples: &early.samples,
        }
    }
}

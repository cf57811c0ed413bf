//! What rows, messages and alarm lines all say of a window, computed in one place.

use crate::{event::Level, model::ScoredWindow, window::FinalBy};

/// The counts of a window under the names of the contract.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) log_count: i32,
    /// `ERROR` lines.
    pub(super) error_count: i32,
    /// `ERROR` and `FATAL` lines.
    pub(super) critical_count: i32,
    /// Shares of all lines, 0 for a window without lines.
    pub(super) error_rate: f64,
    pub(super) critical_rate: f64,
    /// 1 if a line was labelled anomalous.
    pub(super) ground_truth: i32,
    pub(super) labelled_count: i32,
    pub(super) provisional: bool,
}

impl Summary {
    pub(super) fn of(scored: &ScoredWindow) -> Self {
        let content = &scored.window.content;
        let (lines, errors) = (content.lines(), content.level(Level::Error));
        let denominator = f64::from(lines.max(1));
        Self {
            log_count: int(lines),
            error_count: int(errors),
            critical_count: int(content.critical()),
            error_rate: f64::from(errors) / denominator,
            critical_rate: f64::from(content.critical()) / denominator,
            ground_truth: i32::from(content.anomalous > 0),
            labelled_count: int(content.labelled),
            provisional: scored.window.final_by == FinalBy::Open,
        }
    }
}

/// The contract's counts are signed 32-bit; no window of 30 s has 2 billion lines.
pub(super) fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

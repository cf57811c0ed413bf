//! What other budgets would give: the same severities against the thresholds that they set.
//!
//! The run itself goes by one budget: an alarm freezes its stream's volume and is told once, so that
//! a run with another budget may differ by a few windows from what is said here. What a young model
//! holds back depends on the order of its alarms: here it is none the less an alarm, and the report
//! says how many windows these are.

use serde::Serialize;

use super::{Confusion, Kept, Truth, ratio};
use crate::model::Detector;

/// Budgets tried, in false alarms a day.
const BUDGETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0];

/// One budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SweepRow {
    /// False alarms a day allowed.
    pub alarms_per_day: f64,
    /// Windows above this severity alarm.
    pub severity: f64,
    /// Windows that would alarm.
    pub alarms: u64,
    /// Precision, recall and F1; absent without labels.
    pub precision: Option<f64>,
    /// See `precision`.
    pub recall: Option<f64>,
    /// See `precision`.
    pub f1: Option<f64>,
    /// False alarms a day that came; all alarms if the input carries no labels.
    pub false_alarms_per_day: Option<f64>,
}

/// How the threshold depends on the budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Windows a day that a budget is spread over.
    pub(super) windows_per_day: f64,
    /// Days over which false alarms are counted.
    pub(super) days: f64,
    /// The input carries labels.
    pub(super) judged: bool,
}

/// Returns a row per budget, smallest first.
pub(super) fn sweep(windows: &[Kept], scale: Scale) -> Vec<SweepRow> {
    BUDGETS
        .map(|budget| {
            let threshold = Detector::threshold_at(budget, scale.windows_per_day);
            row(windows, budget, -threshold.log10(), scale)
        })
        .to_vec()
}

fn row(windows: &[Kept], alarms_per_day: f64, severity: f64, scale: Scale) -> SweepRow {
    let (mut confusion, mut alarms) = (Confusion::default(), 0);
    for window in windows {
        let alarmed = window.severity > severity;
        alarms += u64::from(alarmed);
        confusion.add(window.truth, alarmed);
    }
    let judged = |figure: fn(Confusion) -> Option<f64>| {
        let figure = figure(confusion);
        figure.filter(|_| scale.judged)
    };
    let false_alarms = if scale.judged { confusion.fp } else { alarms };
    SweepRow {
        alarms_per_day,
        severity,
        alarms,
        precision: judged(Confusion::precision),
        recall: judged(Confusion::recall),
        f1: judged(Confusion::f1),
        false_alarms_per_day: ratio(false_alarms as f64, scale.days),
    }
}

impl Confusion {
    /// Counts a window with a truth.
    pub(super) fn add(&mut self, truth: Truth, alarmed: bool) {
        let count = match (truth, alarmed) {
            (Truth::Unlabelled, _) => return,
            (Truth::Anomalous, true) => &mut self.tp,
            (Truth::Anomalous, false) => &mut self.fn_,
            (Truth::Normal | Truth::Empty, true) => &mut self.fp,
            (Truth::Normal | Truth::Empty, false) => &mut self.tn,
        };
        *count += 1;
    }
}

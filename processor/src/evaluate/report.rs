//! The figures, and the JSON object they make.

use std::io::{self, Write};

use serde::Serialize;

use super::{AlarmHours, BestThreshold, Budget, Case, Incidents, SweepRow};

/// What an evaluation found. Serialises to the JSON object that `replay --json` prints; figures
/// that the input does not give (no labels, nothing to divide by) are null there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Log lines decoded.
    pub events: u64,
    /// Windows scored, empty ones included.
    pub windows: u64,
    /// Windows with at least one anomalous line.
    pub anomalous_windows: Option<u64>,
    /// Windows that alarmed, whether they carry labels or not.
    pub alarms: u64,
    /// Anomalous windows that alarmed.
    pub tp: Option<u64>,
    /// Normal windows that alarmed.
    pub fp: Option<u64>,
    /// Anomalous windows that did not.
    #[serde(rename = "fn")]
    pub fn_: Option<u64>,
    /// Normal windows that did not.
    pub tn: Option<u64>,
    /// Share of the alarms on windows with a truth that were right.
    pub precision: Option<f64>,
    /// Share of the anomalous windows that alarmed.
    pub recall: Option<f64>,
    /// Harmonic mean of both.
    pub f1: Option<f64>,
    /// Probability that an anomalous window ranks above a normal one by severity.
    pub roc_auc: Option<f64>,
    /// Wall time of the run, in seconds.
    pub seconds: f64,
    /// Average precision of the ranking by severity.
    pub pr_auc: Option<f64>,
    /// Rows or records that could not be decoded.
    pub rejected: u64,
    /// Log lines that came too late for their window.
    pub late: u64,
    /// Windows with at least one labelled line.
    pub labelled_windows: u64,
    /// Windows without lines: normal, if the input carries labels at all.
    pub empty_windows: u64,
    /// Windows with lines but no label: in no ratio.
    pub unlabelled_windows: u64,
    /// Windows that a young model held back: they would have alarmed, had its alarms of the day not
    /// been spent.
    pub capped_windows: u64,
    /// Streams seen.
    pub streams: u64,
    /// Start of the first window, RFC 3339.
    pub start: Option<String>,
    /// End of the last window, RFC 3339.
    pub end: Option<String>,
    /// Days from the one to the other.
    pub days: f64,
    /// Of these, days over which false alarms are counted: without the time of windows whose lines
    /// carry no label, unless none does.
    pub judged_days: f64,
    /// Alarms a day.
    pub alarms_per_day: Option<f64>,
    /// Runs of alarmed windows of a stream that follow each other without a gap.
    pub episodes: u64,
    /// False alarms against the budget; absent if there was none.
    pub budget: Option<Budget>,
    /// Recall per kind of anomaly, by name; empty if the input names none.
    pub anomaly_types: Vec<TypeRecall>,
    /// The best that the ranking could give with a threshold chosen by the labels.
    pub best_f1_using_labels: Option<BestThreshold>,
    /// Combined p-value below which windows alarmed, if that is known.
    pub threshold: Option<f64>,
    /// Episodes a day.
    pub episodes_per_day: Option<f64>,
    /// Runs of anomalous windows, how many were found and how fast; absent without labels.
    pub incidents: Option<Incidents>,
    /// False alarms by hour of day, or all alarms if the input carries no labels.
    pub alarm_hours: AlarmHours,
    /// What other budgets would give, smallest first, and nothing held back; empty if the threshold
    /// is not known.
    pub sweep: Vec<SweepRow>,
    /// Anomalous windows that did not alarm, those that looked most normal first.
    pub worst_misses: Vec<Case>,
    /// Normal windows that alarmed, the strangest first.
    pub worst_false_alarms: Vec<Case>,
    /// Windows without a label that alarmed, the strangest first.
    pub strongest_unjudged: Vec<Case>,
}

/// How many windows of one kind of anomaly alarmed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TypeRecall {
    /// The kind, as the input names it.
    pub name: String,
    /// Anomalous windows with such a line.
    pub windows: u64,
    /// Of these, windows that alarmed.
    pub alarmed: u64,
    /// Share that alarmed.
    pub recall: Option<f64>,
    /// Incidents in which such a line came.
    pub incidents: Incidents,
}

impl Report {
    /// Returns the severity above which windows alarmed, if that is known.
    #[must_use]
    pub fn threshold_severity(&self) -> Option<f64> {
        self.threshold.map(|threshold| -threshold.log10())
    }

    /// Writes the report as one line of JSON.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }
}

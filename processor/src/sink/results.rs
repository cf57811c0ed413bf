//! Result messages: what topic `anomaly-results` and `replay --results` say of a window.
//!
//! A message is a function of the scored window (and of whether it came too late to tell anyone):
//! no clock, no state. The first ten fields are a contract in name, type and order; new ones follow
//! after them. The key is the stream and the window's start, so that a compacted topic keeps the
//! last word on each window.

use std::thread;

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use super::{
    Ack, SinkError, WindowJob,
    ack::window_ack,
    alarm_id,
    producer::{self, Encoded, Outgoing, ProducerSetup},
    summary::{Summary, int},
};
use crate::{
    features::COLUMNS,
    model::{Explanation, ScoredWindow},
};

/// Windows that wait for the broker before reading pauses: as many as wait for the store.
pub const RESULTS_QUEUE_MAX: usize = 2_000;

/// Settings of the results topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResultsConfig {
    /// Topic that result messages go to. Default: `anomaly-results`.
    pub topic: String,
}

impl Default for ResultsConfig {
    fn default() -> Self {
        Self {
            topic: "anomaly-results".to_owned(),
        }
    }
}

/// A window's result. Serialises with its fields in this order.
#[derive(Clone, Debug, Serialize)]
pub struct ResultMessage<'a> {
    /// Equal to `window_end`.
    pub timestamp: String,
    /// First instant of the window, RFC 3339.
    pub window_start: String,
    /// First instant after it.
    pub window_end: String,
    /// 0 or 1.
    pub is_anomaly: i32,
    /// In [0, 1].
    pub anomaly_score: f64,
    /// Label of the nearest core point within eps, else -1.
    pub cluster_label: i32,
    /// Lines.
    pub log_count: i32,
    /// `ERROR` lines.
    pub error_count: i32,
    /// `ERROR` and `FATAL` lines.
    pub critical_count: i32,
    /// 1 if a line was labelled anomalous; see `labelled_count`.
    pub ground_truth: i32,
    /// `topic/partition` or `topic/partition/service`.
    pub stream: String,
    /// The stream's topic.
    pub topic: &'a str,
    /// The stream's partition.
    pub partition: i32,
    /// The stream's service, null where windows are grouped by partition.
    pub service: Option<&'a str>,
    /// `watermark`, `end`, `idle`, or `open` while the window is not final.
    pub final_by: &'static str,
    /// To be followed by the final message of the same key.
    pub provisional: bool,
    /// Reading began in its midst, so lines may be missing.
    pub partial: bool,
    /// It came too late to tell anyone.
    pub stale: bool,
    /// Stands for a run of empty windows.
    pub gap: bool,
    /// The stream was too young for its volume to be judged.
    pub cold: bool,
    /// A lasting change of volume was taken for the new level at this window.
    pub level_shift: bool,
    /// It is no anomaly because part of it is muted.
    pub muted: bool,
    /// The model is young, and the stream has not seen its first day with it yet.
    pub learning: bool,
    /// It is no anomaly because the model is young and its alarms of the day were spent.
    pub capped: bool,
    /// -log10 of the combined p-value.
    pub severity: f64,
    /// Empirical CDF of the distance to the nearest core point.
    pub dbscan_score: f64,
    /// `error_count / log_count`.
    pub error_rate: f64,
    /// `critical_count / log_count`.
    pub critical_rate: f64,
    /// Lines that carried a label; 0 means that `ground_truth` says nothing.
    pub labelled_count: i32,
    /// Checksum of the model that scored it.
    pub model_checksum: &'a str,
    /// Smallest offset of its lines, null without lines.
    pub first_offset: Option<i64>,
    /// One past their largest offset.
    pub next_offset: Option<i64>,
    /// Why it scored as it did.
    pub explanation: &'a Explanation,
    /// Every feature by name, in column order.
    pub features: Features<'a>,
    /// What its alarm is called, null when it is no anomaly.
    pub alarm_id: Option<String>,
    /// What an alarm said that came before the window was full, null without one.
    pub early: Option<EarlyField>,
}

/// What an alarm said of a window that was not full yet.
#[derive(Clone, Debug, Serialize)]
pub struct EarlyField {
    /// Event time at which it came.
    pub at: String,
    /// One past the record at which it came: it rests on the lines before.
    pub next_offset: i64,
    /// In [0, 1].
    pub anomaly_score: f64,
    /// -log10 of the combined p-value.
    pub severity: f64,
    /// Lines so far.
    pub log_count: i32,
    /// `ERROR` lines so far.
    pub error_count: i32,
    /// `ERROR` and `FATAL` lines so far.
    pub critical_count: i32,
}

/// Returns what rows and messages say of a window's early alarm.
pub(crate) fn early_field(scored: &ScoredWindow) -> Option<EarlyField> {
    scored.early.as_ref().map(|early| EarlyField {
        at: early.at.to_string(),
        next_offset: early.next.0,
        anomaly_score: early.anomaly_score,
        severity: early.severity,
        log_count: int(early.log_count),
        error_count: int(early.error_count),
        critical_count: int(early.critical_count),
    })
}

/// Feature values that serialise as an object, in column order.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a>(pub(super) &'a [f64]);

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in COLUMNS.iter().zip(self.0) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Returns the result message of a window; `stale` if it came too late to tell anyone (never in
/// `replay`).
#[must_use]
pub fn result_message(scored: &ScoredWindow, stale: bool) -> ResultMessage<'_> {
    let (window, verdict) = (&scored.window, &scored.verdict);
    let counts = Summary::of(scored);
    ResultMessage {
        timestamp: window.bounds.end.to_string(),
        window_start: window.bounds.start.to_string(),
        window_end: window.bounds.end.to_string(),
        is_anomaly: i32::from(verdict.is_anomaly),
        anomaly_score: verdict.anomaly_score,
        cluster_label: verdict.cluster_label,
        log_count: counts.log_count,
        error_count: counts.error_count,
        critical_count: counts.critical_count,
        ground_truth: counts.ground_truth,
        stream: window.stream.to_string(),
        topic: &window.stream.partition.topic,
        partition: window.stream.partition.partition,
        service: window.stream.service.as_deref(),
        final_by: window.final_by.as_str(),
        provisional: counts.provisional,
        partial: window.partial,
        stale,
        gap: window.gap,
        cold: verdict.cold,
        level_shift: verdict.level_shift,
        muted: verdict.muted,
        learning: verdict.learning,
        capped: verdict.capped,
        severity: verdict.severity,
        dbscan_score: verdict.dbscan_score,
        error_rate: counts.error_rate,
        critical_rate: counts.critical_rate,
        labelled_count: counts.labelled_count,
        model_checksum: &scored.model_checksum,
        first_offset: window.span.map(|span| span.first),
        next_offset: window.span.map(|span| span.next.0),
        explanation: &scored.explanation,
        features: Features(&scored.features.values),
        alarm_id: verdict.is_anomaly.then(|| alarm_id(scored)),
        early: early_field(scored),
    }
}

/// Returns the message's key: `stream@window_start`.
#[must_use]
pub fn result_key(scored: &ScoredWindow) -> String {
    let window = &scored.window;
    format!("{}@{}", window.stream, window.bounds.start)
}

impl Outgoing for WindowJob {
    fn encode(&self) -> Encoded {
        let message = result_message(&self.scored, self.stale);
        Encoded {
            key: result_key(&self.scored),
            // Strings and numbers always make JSON; non-finite numbers become null.
            payload: serde_json::to_vec(&message).unwrap_or_default(),
        }
    }

    fn ack(&self) -> Ack {
        window_ack(self)
    }
}

/// Starts the thread that writes result messages.
pub(super) fn start(
    setup: ProducerSetup<'_>,
) -> Result<(Sender<WindowJob>, thread::JoinHandle<()>), SinkError> {
    producer::start(setup, Box::new(|_| true))
}

//! Scored windows, built by hand.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;

use logguard::{
    decode::Template,
    event::{EventTime, Level, LogEvent, NextOffset, OffsetSpan, StreamKey, TopicPartition},
    features::{COLUMNS, FeatureRow},
    model::{Baseline, Explanation, ScoredWindow, Verdict},
    sink::WindowJob,
    window::{ClosedWindow, FinalBy, StreamProgress, WindowBounds, WindowContent},
};

/// 2025-12-27T10:30:00Z, start of window 0.
pub(crate) const START_MS: i64 = 1_766_831_400_000;

/// What a test says of a window; the rest is the same for all.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) topic: &'static str,
    pub(crate) partition: i32,
    pub(crate) service: Option<&'static str>,
    /// Number of the 30-second window.
    pub(crate) window: i64,
    pub(crate) final_by: FinalBy,
    pub(crate) partial: bool,
    pub(crate) gap: bool,
    pub(crate) is_anomaly: bool,
    pub(crate) score: f64,
    pub(crate) reasons: Vec<&'static str>,
    /// Level, message and label of each line.
    pub(crate) lines: Vec<(Level, &'static str, Option<bool>)>,
    pub(crate) fence: i64,
    pub(crate) assignment: u64,
    pub(crate) stale: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            topic: "log-events",
            partition: 0,
            service: None,
            window: 0,
            final_by: FinalBy::Watermark,
            partial: false,
            gap: false,
            is_anomaly: false,
            score: 0.25,
            reasons: vec![],
            lines: vec![(Level::Info, "all is well", None)],
            fence: 1,
            assignment: 7,
            stale: false,
        }
    }
}

/// Returns the partition of a spec.
pub(crate) fn partition(spec: &Spec) -> TopicPartition {
    TopicPartition {
        topic: spec.topic.into(),
        partition: spec.partition,
    }
}

/// Returns the start of a window by its number.
pub(crate) fn window_start(window: i64) -> EventTime {
    EventTime::from_millis(START_MS + window * 30_000).unwrap()
}

/// Returns the bounds of the window of a spec; a gap spans ten windows.
pub(crate) fn bounds(spec: &Spec) -> WindowBounds {
    WindowBounds {
        start: window_start(spec.window),
        end: window_start(spec.window + if spec.gap { 10 } else { 1 }),
    }
}

/// Returns the job of a spec.
pub(crate) fn job(spec: &Spec) -> WindowJob {
    let bounds = bounds(spec);
    let mut content = WindowContent::default();
    for (level, message, label) in &spec.lines {
        let event = LogEvent {
            time: bounds.start,
            level: *level,
            service: "auth-service".into(),
            message: (*message).into(),
            label: *label,
        };
        content.add(&event, &Arc::new(Template::new(message)));
    }
    let lines = i64::try_from(spec.lines.len()).unwrap();
    let scored = ScoredWindow {
        window: ClosedWindow {
            stream: StreamKey {
                partition: partition(spec),
                service: spec.service.map(Into::into),
            },
            bounds,
            slot: if spec.gap { bounds.end } else { bounds.start },
            content: Arc::new(content),
            span: (lines > 0).then_some(OffsetSpan {
                first: 100,
                next: NextOffset(100 + lines),
            }),
            final_by: spec.final_by,
            gap: spec.gap,
            first: false,
            partial: spec.partial,
            max_event_time_before: None,
            previous: None,
            lateness_ms: 2_000,
            progress: StreamProgress {
                row_end: bounds.end,
                empty_run: 0,
                seen_until: bounds.end,
            },
        },
        features: FeatureRow {
            values: vec![0.5; COLUMNS.len()],
        },
        verdict: Verdict {
            is_anomaly: spec.is_anomaly,
            anomaly_score: spec.score,
            severity: 4.5,
            cluster_label: -1,
            dbscan_score: 0.75,
            cold: false,
            level_shift: false,
            muted: false,
            learning: false,
            capped: false,
        },
        explanation: Explanation {
            reasons: spec.reasons.iter().map(|it| (*it).to_owned()).collect(),
            ..Explanation::default()
        },
        baseline: Baseline::default(),
        model_checksum: "c0ffee".into(),
        threshold: 1e-4,
        early: None,
    };
    WindowJob {
        scored: Arc::new(scored),
        assignment: spec.assignment,
        fence: spec.fence,
        alarm: spec.final_by != FinalBy::Open,
        stale: spec.stale,
    }
}

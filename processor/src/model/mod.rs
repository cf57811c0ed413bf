//! The model: training, the bundle, and the scorer.
//!
//! ```text
//! ClosedWindow + Baseline ──► features ──► signals (p-values) ──► combined p ──► Verdict
//! ```
//!
//! Scoring is a function of the window, the stream's rolling baseline and the bundle: no clock,
//! no I/O, no randomness.

mod absence;
mod adoption;
mod baseline;
mod bundle;
mod by_hand;
mod calibration;
mod chain;
mod clusters;
mod counts;
mod density;
mod detector;
mod drift;
mod early;
mod explain;
mod history;
mod isolation_forest;
mod mute;
mod nearest;
mod occasions;
mod pattern;
mod profile;
mod rhythm;
mod second;
mod signals;
mod silence;
mod stop_words;
mod sway;
mod tail;
mod tally;
mod text;
mod train;
mod youth;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use adoption::{ADOPTED_MAX, CANDIDATES_MAX, PATIENCE_MS, RECURRENCES, StreamTemplate};
pub use baseline::{Baseline, COLD_WINDOWS, LEVEL_SHIFT_WINDOWS};
pub use bundle::{
    BUNDLE_BYTES_MAX, BUNDLE_FILE, BUNDLE_FORMAT, Bundle, BundleDefect, BundleError, BundleSummary,
    LearntTemplate,
};
pub use by_hand::Decision;
pub use detector::Detector;
pub use early::{EarlyAlarm, OpenWatch};
pub use explain::{ColumnFinding, Explanation, ServiceFinding, TemplateFinding, TemplateKind};
pub use mute::{Mute, Mutes, Pattern};
pub use pattern::PARTS_MAX;
pub use train::{TrainError, TrainProgress, Trainer, WINDOWS_MIN};

use crate::{features::FeatureRow, window::ClosedWindow};

/// What the scorer says of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The combined p-value is below the threshold.
    pub is_anomaly: bool,
    /// In [0, 1], strictly monotone in the combined p-value; 0.5 at the threshold.
    pub anomaly_score: f64,
    /// -log10 of the combined p-value, tail-extrapolated.
    pub severity: f64,
    /// Label of the nearest core point within eps, else -1.
    pub cluster_label: i32,
    /// Empirical CDF of the distance to the nearest core point, in [0, 1].
    pub dbscan_score: f64,
    /// The stream is too young for its volume to be judged.
    pub cold: bool,
    /// A lasting change of volume was taken for the new level at this window.
    pub level_shift: bool,
    /// It is no anomaly because part of it is muted.
    pub muted: bool,
    /// The model is young, and the stream has not seen its first day with it yet.
    pub learning: bool,
    /// It is no anomaly because the model is young and its alarms of the day were spent.
    pub capped: bool,
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlarmKind {
    /// The lines of a window.
    Window,
    /// The lines of a window that was not full yet.
    Early,
    /// That there are none: told once per silence.
    Silence,
}

impl AlarmKind {
    /// Returns the name in tables and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Early => "early",
            Self::Silence => "silence",
        }
    }
}

/// A window with its score: what every sink writes.
#[derive(Clone, Debug)]
pub struct ScoredWindow {
    /// The window.
    pub window: ClosedWindow,
    /// Its feature row.
    pub features: FeatureRow,
    /// The decision.
    pub verdict: Verdict,
    /// The reasons.
    pub explanation: Explanation,
    /// The stream's baseline after this window.
    pub baseline: Baseline,
    /// Checksum of the bundle that scored it.
    pub model_checksum: Arc<str>,
    /// Combined p-value below which windows were anomalous.
    pub threshold: f64,
    /// The alarm that told of it before it was full.
    pub early: Option<Arc<EarlyAlarm>>,
}

impl ScoredWindow {
    /// Returns about how many bytes the window takes while it waits for the sinks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let reasons = self.explanation.reasons.iter().map(String::len);
        size_of::<Self>()
            + self.window.content.bytes()
            + self.baseline.bytes()
            + size_of_val(self.features.values.as_slice())
            + reasons.sum::<usize>()
            + self.early.as_ref().map_or(0, |early| early.bytes())
    }
}

impl ScoredWindow {
    /// Returns what an alarm of this window is about. A window without lines is only ever judged for
    /// silence.
    #[must_use]
    pub fn alarm_kind(&self) -> AlarmKind {
        if self.early.is_some() {
            AlarmKind::Early
        } else if self.window.content.lines() == 0 {
            AlarmKind::Silence
        } else {
            AlarmKind::Window
        }
    }
}

//! The model: training, the bundle, and the scorer.
//!
//! ```text
//! ClosedWindow + Baseline ──► features ──► signals (p-values) ──► combined p ──► Verdict
//! ```
//!
//! Scoring is a function of the window, the stream's rolling baseline and the bundle: no clock,
//! no I/O, no randomness.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{features::FeatureRow, window::ClosedWindow};

/// A stream's rolling baseline: what a score depends on besides the window and the model. Rides
/// in the row as JSON and is read back when the partition is assigned again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {}

/// What the scorer says of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The combined p-value is below the threshold.
    pub is_anomaly: bool,
    /// In [0, 1], strictly monotone in the combined p-value.
    pub anomaly_score: f64,
    /// -log10 of the combined p-value, tail-extrapolated.
    pub severity: f64,
    /// Label of the nearest core point within eps, else -1.
    pub cluster_label: i32,
    /// Empirical CDF of the distance to the nearest core point, in [0, 1].
    pub dbscan_score: f64,
    /// The stream is too young for its volume to be judged.
    pub cold: bool,
}

/// Why a window scored as it did. Serialised into the result message, the table and, in short,
/// the alarm line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The strongest signals, strongest first, each one sentence for a person.
    pub reasons: Vec<String>,
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
}

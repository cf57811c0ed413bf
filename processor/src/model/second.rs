//! The second detector, to compare with: an isolation forest over the same columns, with a threshold
//! that is set in the same way, without labels.
//!
//! ```text
//! block 1 … 3   4      5      6  …  10
//!       profile ► rows ► forest ► scores ─► tail ─► p-value of a score
//! ```
//!
//! Rows come by forward chaining, as everywhere: each block's from what was counted before it, since a
//! forest that has never met the unseen cannot judge it. Only `replay` asks for it; alarms are the
//! other detector's.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    Baseline, Bundle, ScoredWindow, Verdict,
    bundle::BundleDefect,
    chain::{BLOCKS, BLOCKS_FITTED_ONLY, adopt, observe},
    history::History,
    isolation_forest::Forest,
    profile::{Names, Profile},
    tail::Tail,
    tally::Tally,
};
use crate::features::row;

/// Most rows that the forest is grown from; an even sample.
const ROWS_MAX: usize = 4_096;
/// Fewest rows that are worth a forest.
const ROWS_MIN: usize = 256;

/// What a bundle holds of the second detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Second {
    forest: Forest,
    /// P(score >= x) on normal time.
    tail: Tail,
}

/// Every so-manieth row, thinned out whenever there are too many.
struct Sample {
    rows: Vec<Vec<f64>>,
    step: usize,
    seen: usize,
}

impl Sample {
    fn add(&mut self, row: &[f64]) {
        if self.seen.is_multiple_of(self.step) {
            if self.rows.len() == ROWS_MAX {
                let mut number = 0;
                self.rows.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                self.step *= 2;
            }
            self.rows.push(row.to_vec());
        }
        self.seen += 1;
    }
}

impl Second {
    /// Learns from the windows of training; `None` if they are too few.
    pub(super) fn fit(history: &History, names: &Names, length_ms: i64) -> Option<Self> {
        let (first, last) = history.iter().fold((i64::MAX, i64::MIN), |(min, max), w| {
            (min.min(w.window), max.max(w.window))
        });
        #[allow(clippy::cast_possible_wrap, reason = "ten blocks")]
        let block_windows = (last.saturating_sub(first) / BLOCKS as i64).saturating_add(1);
        let mut tally = Tally::default();
        let mut baselines: HashMap<u32, Baseline> = HashMap::new();
        let mut sample = Sample {
            rows: Vec::new(),
            step: 1,
            seen: 0,
        };
        let (mut profile, mut forest) = (None, None);
        let (mut scores, mut block) = (Vec::new(), 0);
        for window in history.iter() {
            let of_block = window.window.saturating_sub(first) / block_windows;
            if of_block > block && of_block >= BLOCKS_FITTED_ONLY {
                block = of_block;
                profile = Some(Profile::fit(&tally, names));
                let enough = sample.rows.len() >= ROWS_MIN;
                forest = enough.then(|| Forest::fit(&sample.rows)).flatten();
            }
            if let Some(profile) = &profile {
                let mut observed = observe(&window, profile, names);
                let baseline = baselines.entry(window.stream).or_default();
                adopt(&window, &mut observed, baseline, length_ms);
                baseline.observe(&observed, length_ms);
                if window.lines() > 0 {
                    let values = row(&observed, &baseline.trailing).values;
                    if let Some(forest) = &forest {
                        scores.push(forest.score(&values));
                    }
                    sample.add(&values);
                }
            }
            tally.add(&window, &names.pairs, true);
        }
        if scores.is_empty() {
            return None;
        }
        Some(Self {
            forest: Forest::fit(&sample.rows)?,
            tail: Tail::of_windows(&scores),
        })
    }

    /// Checks what a file may have got wrong.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        self.forest.check()?;
        self.tail.check()
    }
}

impl Bundle {
    /// Returns whether the model holds the second detector.
    #[must_use]
    pub fn has_second_detector(&self) -> bool {
        self.content.second.is_some()
    }

    /// Returns what the second detector says of a window that the first has scored; windows without
    /// lines it takes for normal. `None` if the model was trained without it.
    #[must_use]
    pub fn second_verdict(&self, scored: &ScoredWindow) -> Option<Verdict> {
        let Second { forest, tail } = self.content.second.as_ref()?;
        let mut ln_p = 0.0;
        if scored.window.content.lines() > 0 {
            ln_p = tail.ln_survival(forest.score(&scored.features.values));
        }
        let ln_threshold = scored.threshold.ln();
        let severity = -ln_p / std::f64::consts::LN_10 + 0.0;
        let at_threshold = -ln_threshold / std::f64::consts::LN_10;
        Some(Verdict {
            is_anomaly: ln_p < ln_threshold,
            anomaly_score: severity / (severity + at_threshold),
            severity,
            level_shift: false,
            muted: false,
            capped: false,
            ..scored.verdict
        })
    }
}

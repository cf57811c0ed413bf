//! One model and the labels.

use std::sync::Arc;

use super::{Observer, OutputFile, Side};
use crate::{
    cli::DetectorArg,
    evaluate::{EvaluatedWindow, Evaluation},
    event::EventTime,
    model::{Bundle, ScoredWindow},
};

/// Evaluates what one model says, and writes its result messages.
pub(super) struct Alone {
    pub(super) bundle: Arc<Bundle>,
    /// What decides.
    pub(super) detector: DetectorArg,
    pub(super) evaluation: Evaluation,
    /// What the second detector says, where both are wanted.
    pub(super) second: Option<Evaluation>,
    pub(super) results: Option<OutputFile>,
}

impl Alone {
    /// Lets the second detector decide in the first one's stead. The reasons stay those of the first:
    /// a forest has none.
    fn judge_by_second(&self, scored: &mut ScoredWindow) {
        if let Some(verdict) = self.bundle.second_verdict(scored) {
            scored.verdict = verdict;
            // It looks at full windows only.
            scored.early = None;
        }
    }
}

impl Observer for Alone {
    fn closed(&mut self, sides: &mut [Side<'_>]) -> anyhow::Result<()> {
        for mut scored in sides[0].closed.drain(..) {
            if self.detector == DetectorArg::IsolationForest {
                self.judge_by_second(&mut scored);
            }
            self.evaluation.add(EvaluatedWindow::from(&scored));
            if let Some(results) = &mut self.results {
                results.write(&scored)?;
            }
            if self.second.is_some() {
                self.judge_by_second(&mut scored);
            }
            if let Some(second) = &mut self.second {
                second.add(EvaluatedWindow::from(&scored));
            }
        }
        Ok(())
    }

    fn anomaly_type(&mut self, time: EventTime, name: &str) {
        self.evaluation.add_anomaly_type(time, name);
        if let Some(second) = &mut self.second {
            second.add_anomaly_type(time, name);
        }
    }
}

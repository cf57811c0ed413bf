//! One model and the labels.

use super::{Observer, OutputFile, Side};
use crate::{
    evaluate::{EvaluatedWindow, Evaluation},
    event::EventTime,
};

/// Evaluates what one model says, and writes its result messages.
pub(super) struct Alone {
    pub(super) evaluation: Evaluation,
    pub(super) results: Option<OutputFile>,
}

impl Observer for Alone {
    fn closed(&mut self, sides: &mut [Side<'_>]) -> anyhow::Result<()> {
        for scored in sides[0].closed.drain(..) {
            self.evaluation.add(EvaluatedWindow::from(&scored));
            if let Some(results) = &mut self.results {
                results.write(&scored)?;
            }
        }
        Ok(())
    }

    fn anomaly_type(&mut self, time: EventTime, name: &str) {
        self.evaluation.add_anomaly_type(time, name);
    }
}

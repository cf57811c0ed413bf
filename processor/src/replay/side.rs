//! One model at work on the input.

use std::{collections::HashMap, sync::Arc};

use crate::{
    config::Config,
    decode::RejectReason,
    evaluate::RunTotals,
    event::{LogEvent, Partial, TopicPartition},
    model::{Bundle, Detector, Mutes, ScoredWindow},
    pipeline::{PartitionPipeline, Shared, Step},
    source::RawRecord,
    window::Recovered,
};

/// The stages of `run` for every partition, with one model. Where several judge the same input, their
/// windows close in the same order: what a window is does not depend on the model.
pub(super) struct Side<'a> {
    config: &'a Config,
    pub(super) shared: Shared,
    pipelines: HashMap<i32, PartitionPipeline>,
    steps: Vec<Step<ScoredWindow>>,
    /// What closed since it was last taken.
    pub(super) closed: Vec<ScoredWindow>,
    pub(super) totals: RunTotals,
}

impl<'a> Side<'a> {
    /// Returns a model that judges a topic of `partitions` partitions.
    ///
    /// # Errors
    /// The model is for windows of another length, or its masks or the redaction cannot be used.
    pub(super) fn new(
        config: &'a Config,
        bundle: Arc<Bundle>,
        partitions: usize,
        mutes: Option<Arc<Mutes>>,
    ) -> anyhow::Result<Self> {
        super::check_window(config, &bundle)?;
        let streams = super::streams(config, &bundle, partitions);
        let windows_per_day = Detector::windows_per_day(&bundle, streams);
        let mut shared = super::shared(config, bundle, partitions)?;
        if let Some(mutes) = mutes {
            shared.set_mutes(mutes);
        }
        let totals = RunTotals {
            alarms_per_day: Some(config.model.alarms_per_day),
            threshold: Some(shared.threshold()),
            windows_per_day: Some(windows_per_day),
            ..RunTotals::default()
        };
        Ok(Self {
            config,
            shared,
            pipelines: HashMap::new(),
            steps: Vec::new(),
            closed: Vec::new(),
            totals,
        })
    }

    /// Begins a partition; `partial` if records before its first one are gone.
    pub(super) fn start(&mut self, partition: i32, partial: bool) {
        let key = TopicPartition {
            partition,
            ..self.config.file_partition()
        };
        let partial = if partial {
            Partial::FromFirstRecord
        } else {
            Partial::No
        };
        let recovered = Recovered {
            partial,
            ..Recovered::default()
        };
        let window = self.config.window.window_config();
        let pipeline = PartitionPipeline::new(window, key, recovered, Vec::new());
        self.pipelines.insert(partition, pipeline);
    }

    /// Takes an event of a file; returns whether it was counted.
    pub(super) fn event(&mut self, partition: i32, event: &LogEvent<'_>, offset: i64) -> bool {
        if let Some(pipeline) = self.pipelines.get_mut(&partition) {
            pipeline.event(&mut self.shared, event, offset, &mut self.steps);
        }
        self.take_steps()
    }

    /// Takes a record of a topic.
    pub(super) fn record(&mut self, partition: i32, record: RawRecord<'_>) {
        if let Some(pipeline) = self.pipelines.get_mut(&partition) {
            pipeline.record(&mut self.shared, record, &mut self.steps);
        }
        self.take_steps();
    }

    /// Ends a partition.
    pub(super) fn end(&mut self, partition: i32) {
        if let Some(mut pipeline) = self.pipelines.remove(&partition) {
            pipeline.end(&mut self.shared, &mut self.steps);
            self.take_steps();
        }
    }

    /// Takes what the last record brought about; returns whether the record was counted.
    fn take_steps(&mut self) -> bool {
        let mut counted = true;
        for step in self.steps.drain(..) {
            match step {
                // The final row has what an early alarm said.
                Step::Opened { .. } | Step::Deployed { .. } | Step::Early(_) => {}
                Step::Rejected { rejected, .. } => {
                    counted = false;
                    match rejected.reason {
                        RejectReason::Late => self.totals.late += 1,
                        _ => self.totals.rejected += 1,
                    }
                }
                Step::Closed(scored) => self.closed.push(scored),
            }
        }
        counted
    }
}

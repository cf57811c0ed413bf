//! Metrics of the whole process, under the prefix `logguard`. Stages that have metrics of their
//! own define them beside their code; this file adds the pipeline's and registers all of them.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{decode::RejectReason, model::ScoredWindow, sink::SinkMetrics, source::SourceMetrics};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// What the pipeline counts. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct PipelineMetrics {
    rejected: Family<ReasonLabel, Counter>,
    windows: Counter,
    lines: Counter,
    anomalies: Counter,
    overflow_lines: Counter,
    outbox: Gauge,
}

impl PipelineMetrics {
    /// Registers every metric.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "rejected",
            "Records not scored, by reason",
            self.rejected.clone(),
        );
        registry.register("windows", "Windows closed and scored", self.windows.clone());
        registry.register("lines", "Lines in closed windows", self.lines.clone());
        registry.register(
            "anomalies",
            "Windows that are anomalies",
            self.anomalies.clone(),
        );
        registry.register(
            "overflow_lines",
            "Lines not told apart because their window had too many templates or services",
            self.overflow_lines.clone(),
        );
        registry.register(
            "outbox",
            "Results waiting for room in a sink",
            self.outbox.clone(),
        );
        for reason in RejectReason::ALL {
            drop(self.rejected.get_or_create(&ReasonLabel {
                reason: reason.as_str(),
            }));
        }
    }

    /// Counts a record that is not scored.
    pub fn rejected(&self, reason: RejectReason) {
        self.rejected
            .get_or_create(&ReasonLabel {
                reason: reason.as_str(),
            })
            .inc();
    }

    /// Counts a closed window.
    pub fn closed(&self, scored: &ScoredWindow) {
        self.windows.inc();
        self.lines.inc_by(u64::from(scored.window.content.lines()));
        self.overflow_lines
            .inc_by(u64::from(scored.window.content.overflow));
        if scored.verdict.is_anomaly {
            self.anomalies.inc();
        }
    }

    /// Notes how many results wait for room.
    pub fn outbox(&self, waiting: usize) {
        self.outbox.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

/// Every metric of the process. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The source's.
    pub source: SourceMetrics,
    /// The pipeline's.
    pub pipeline: PipelineMetrics,
    /// The sinks'.
    pub sink: SinkMetrics,
}

impl Metrics {
    /// Returns a registry that holds them all.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("logguard");
        self.source.register(&mut registry);
        self.pipeline.register(&mut registry);
        self.sink.register(&mut registry);
        registry
    }
}

//! Metrics of the whole process, under the prefix `logguard`. Stages that have metrics of their
//! own define them beside their code; this file adds the pipeline's and registers all of them.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    decode::RejectReason,
    learn::LearningMetrics,
    model::ScoredWindow,
    sink::SinkMetrics,
    source::{PartitionLabel, SourceMetrics},
};

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
    /// Alarms of windows that were not full yet.
    pub(crate) early_alarms: Counter,
    muted: Counter,
    learning: Counter,
    capped: Counter,
    mutes: Gauge,
    overflow_lines: Counter,
    outbox: Gauge,
    open_windows: Gauge,
    streams: Gauge,
    windows_pending: Gauge,
    letters_pending: Gauge,
    templates: Gauge,
    template_evictions: Gauge,
    /// The source's, to be looked at.
    read_lag: Family<PartitionLabel, Gauge>,
    template_bytes: Gauge,
    unseen_texts: Gauge,
    under_way_bytes: Gauge,
    acks_waiting: Gauge,
    open_pairs: Gauge,
    baselines: Gauge,
}

impl PipelineMetrics {
    /// Returns how many records of a partition are not read yet; `None` while that is not known.
    #[must_use]
    pub fn read_lag(&self, partition: i32) -> Option<i64> {
        let label = PartitionLabel { partition };
        self.read_lag.get(&label).map(|gauge| gauge.get())
    }

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
            "early_alarms",
            "Alarms raised before their window was full",
            self.early_alarms.clone(),
        );
        registry.register(
            "muted",
            "Windows that are no anomalies because part of them is muted",
            self.muted.clone(),
        );
        registry.register(
            "learning",
            "Windows judged by a young model",
            self.learning.clone(),
        );
        registry.register(
            "capped",
            "Windows that are no anomalies because a young model has raised its alarms of the day",
            self.capped.clone(),
        );
        registry.register(
            "overflow_lines",
            "Lines not told apart because their window had too many templates or services",
            self.overflow_lines.clone(),
        );
        self.register_gauges(registry);
        for reason in RejectReason::ALL {
            drop(self.rejected.get_or_create(&ReasonLabel {
                reason: reason.as_str(),
            }));
        }
    }

    /// Registers what tells how full things are.
    fn register_gauges(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("outbox", "Results waiting for room in a sink", &self.outbox),
            (
                "open_windows",
                "Windows that records may still come for",
                &self.open_windows,
            ),
            ("streams", "Streams known", &self.streams),
            (
                "mutes",
                "Mutes and template decisions known, expired ones included",
                &self.mutes,
            ),
            (
                "windows_pending",
                "Final windows not yet durable everywhere",
                &self.windows_pending,
            ),
            (
                "letters_pending",
                "Dead letters not yet durable",
                &self.letters_pending,
            ),
            ("templates", "Templates in the dictionary", &self.templates),
            (
                "template_bytes",
                "Bytes of text in the dictionary",
                &self.template_bytes,
            ),
            (
                "unseen_texts",
                "Texts kept of templates that training had not",
                &self.unseen_texts,
            ),
            (
                "windows_under_way_bytes",
                "Memory of the windows that sinks hold, about",
                &self.under_way_bytes,
            ),
            (
                "acks_waiting",
                "Answers of sinks not yet taken by the consumer",
                &self.acks_waiting,
            ),
            (
                "open_pairs",
                "Templates told apart in open windows, by service",
                &self.open_pairs,
            ),
            ("baselines", "Streams with a baseline", &self.baselines),
            (
                "template_evictions",
                "Templates forgotten for lack of room",
                &self.template_evictions,
            ),
        ] {
            registry.register(name, help, gauge.clone());
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
        if scored.verdict.muted {
            self.muted.inc();
        }
        self.learning.inc_by(u64::from(scored.verdict.learning));
        self.capped.inc_by(u64::from(scored.verdict.capped));
    }

    /// Sets every gauge.
    pub fn set_gauges(&self, gauges: Gauges) {
        let set = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.outbox, gauges.outbox);
        set(&self.open_windows, gauges.open_windows);
        set(&self.streams, gauges.streams);
        set(&self.mutes, gauges.mutes);
        set(&self.windows_pending, gauges.windows_pending);
        set(&self.letters_pending, gauges.letters_pending);
        set(&self.templates, gauges.templates);
        set(&self.template_bytes, gauges.template_bytes);
        set(&self.unseen_texts, gauges.unseen_texts);
        set(&self.under_way_bytes, gauges.under_way_bytes);
        set(&self.acks_waiting, gauges.acks_waiting);
        set(&self.open_pairs, gauges.open_pairs);
        set(&self.baselines, gauges.baselines);
        self.template_evictions
            .set(i64::try_from(gauges.template_evictions).unwrap_or(i64::MAX));
    }
}

/// What the gauges are set to: the sums over the partitions of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Results waiting for room in a sink.
    pub outbox: usize,
    /// Windows that records may still come for.
    pub open_windows: usize,
    /// Streams known.
    pub streams: usize,
    /// Mutes known, expired ones included.
    pub mutes: usize,
    /// Final windows not yet durable everywhere.
    pub windows_pending: usize,
    /// Dead letters not yet durable.
    pub letters_pending: usize,
    /// Templates in the dictionary.
    pub templates: usize,
    /// Bytes of text in the dictionary.
    pub template_bytes: usize,
    /// Texts kept of templates that training had not.
    pub unseen_texts: usize,
    /// Memory of the windows that sinks hold, about.
    pub under_way_bytes: usize,
    /// Answers of sinks not yet taken.
    pub acks_waiting: usize,
    /// (service, template) pairs told apart in open windows.
    pub open_pairs: usize,
    /// Streams with a baseline.
    pub baselines: usize,
    /// Templates forgotten for lack of room, since the start.
    pub template_evictions: u64,
}

/// Every metric of the process. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The source's.
    pub source: SourceMetrics,
    /// The pipeline's.
    pub pipeline: PipelineMetrics,
    /// The sinks'.
    pub sink: SinkMetrics,
    /// The first model's.
    pub learning: LearningMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let source = SourceMetrics::default();
        let pipeline = PipelineMetrics {
            read_lag: source.read_lag.clone(),
            ..PipelineMetrics::default()
        };
        Self {
            source,
            pipeline,
            sink: SinkMetrics::default(),
            learning: LearningMetrics::default(),
        }
    }
}

impl Metrics {
    /// Returns a registry that holds them all.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("logguard");
        self.source.register(&mut registry);
        self.pipeline.register(&mut registry);
        self.sink.register(&mut registry);
        self.learning.register(&mut registry);
        registry
    }
}

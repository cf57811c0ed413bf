//! What the sinks count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Names a sink in metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SinkLabel {
    /// `store`, `results`, `alarm_file`, `dead_letter` or `deploys`.
    pub sink: &'static str,
}

/// Counters of every sink.
#[derive(Clone, Debug, Default)]
pub struct SinkMetrics {
    /// Windows or dead letters made durable and acknowledged.
    pub delivered: Family<SinkLabel, Counter>,
    /// Windows or dead letters that the peer refused for what they are: logged and acknowledged.
    pub refused: Family<SinkLabel, Counter>,
    /// Failed attempts that were or will be repeated.
    pub retries: Family<SinkLabel, Counter>,
    /// Windows or dead letters handed to the sink and not yet acknowledged.
    pub pending: Family<SinkLabel, Gauge>,
    /// 0 while the last write has failed, else 1.
    pub up: Family<SinkLabel, Gauge>,
    /// Rows not written since a final or complete one was there already.
    pub rows_kept: Counter,
    /// Rows not written since another process owns the partition.
    pub rows_fenced: Counter,
    /// Raw lines stored.
    pub raw_lines_stored: Counter,
    /// Raw lines not stored, since the database was slow or away.
    pub raw_lines_dropped: Counter,
    /// Alarms not appended since the file has them already.
    pub alarms_known: Counter,
    /// Alarms appended without the lock, which could not be had in time.
    pub alarms_unlocked: Counter,
    /// Torn ends of the alarm file that were cut off or closed with a newline.
    pub alarm_tails_repaired: Counter,
    /// Rounds of health notes that could not be written.
    pub health_notes_dropped: Counter,
    /// Alarms remembered so that none stands in a file twice.
    pub alarms_remembered: Gauge,
    /// Late records counted here alone, since more came than are copied.
    pub late_not_copied: Counter,
}

impl SinkMetrics {
    /// Registers the metrics; the registry adds the program's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "sink_delivered",
            "Windows or dead letters made durable",
            self.delivered.clone(),
        );
        registry.register(
            "sink_refused",
            "Windows or dead letters refused for what they are",
            self.refused.clone(),
        );
        registry.register(
            "sink_retries",
            "Failed attempts, repeated until they succeed",
            self.retries.clone(),
        );
        registry.register(
            "sink_pending",
            "Windows or dead letters not yet acknowledged",
            self.pending.clone(),
        );
        registry.register(
            "sink_up",
            "0 while the last write has failed",
            self.up.clone(),
        );
        self.register_counters(registry);
        registry.register(
            "alarms_remembered",
            "Alarms remembered so that none is appended twice",
            self.alarms_remembered.clone(),
        );
    }

    fn register_counters(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            (
                "store_rows_kept",
                "Rows not written since a final or complete one was there",
                &self.rows_kept,
            ),
            (
                "store_rows_fenced",
                "Rows not written since another process owns the partition",
                &self.rows_fenced,
            ),
            (
                "store_raw_lines",
                "Raw lines stored",
                &self.raw_lines_stored,
            ),
            (
                "store_raw_lines_dropped",
                "Raw lines not stored since the database was slow or away",
                &self.raw_lines_dropped,
            ),
            (
                "alarms_known",
                "Alarms not appended since the file has them",
                &self.alarms_known,
            ),
            (
                "alarms_unlocked",
                "Alarms appended without the lock of the file",
                &self.alarms_unlocked,
            ),
            (
                "alarm_tails_repaired",
                "Torn ends of the alarm file that were repaired",
                &self.alarm_tails_repaired,
            ),
            (
                "health_notes_dropped",
                "Rounds of health notes that the store did not take in time",
                &self.health_notes_dropped,
            ),
            (
                "late_not_copied",
                "Late records counted but not copied to the dead-letter topic",
                &self.late_not_copied,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    /// Returns the meters of one sink.
    #[must_use]
    pub fn meter(&self, sink: &'static str) -> SinkMeter {
        let label = SinkLabel { sink };
        SinkMeter {
            sink,
            delivered: self.delivered.get_or_create_owned(&label),
            refused: self.refused.get_or_create_owned(&label),
            retries: self.retries.get_or_create_owned(&label),
            pending: self.pending.get_or_create_owned(&label),
            up: self.up.get_or_create_owned(&label),
        }
    }
}

/// The meters of one sink; see [`SinkMetrics`] for what each counts.
#[derive(Clone, Debug)]
pub struct SinkMeter {
    /// The sink's name.
    pub sink: &'static str,
    /// Made durable.
    pub delivered: Counter,
    /// Refused for what they are.
    pub refused: Counter,
    /// Failed attempts.
    pub retries: Counter,
    /// Not yet acknowledged.
    pub pending: Gauge,
    /// 0 while the last write has failed.
    pub up: Gauge,
}

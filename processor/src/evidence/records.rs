//! The records of an alarm, read again from Kafka: exactly its offsets, outside any group.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::{
    event::{NextOffset, OffsetSpan, TopicPartition},
    rescore::Line,
    sink::store::StoredAlarm,
    source::{KafkaConfig, RawRecord, SourceError, TopicEvent, TopicReader},
};

/// What was read.
#[derive(Clone, Debug)]
pub struct Records {
    partition: TopicPartition,
    span: Option<OffsetSpan>,
    lines_max: usize,
    counted: u64,
    /// The first lines of the window.
    pub(super) lines: Vec<ShownLine>,
    /// Lines of the window.
    pub(super) line_count: usize,
    missing: Vec<String>,
}

/// A line as it is shown in JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShownLine {
    pub(super) offset: i64,
    pub(super) time: String,
    pub(super) level: &'static str,
    pub(super) service: String,
    pub(super) message: String,
}

impl From<Line> for ShownLine {
    fn from(line: Line) -> Self {
        Self {
            offset: line.offset,
            time: line.time.to_string(),
            level: line.level.as_str(),
            service: line.service,
            message: line.message,
        }
    }
}

impl Records {
    /// Returns the records of an alarm, and of its row if that ends after it.
    pub(super) fn new(alarm: &StoredAlarm, row_ends: Option<i64>, lines_max: usize) -> Self {
        let mut span = alarm.span();
        if let (Some(span), Some(row_ends)) = (&mut span, row_ends) {
            span.next = span.next.max(NextOffset(row_ends));
        }
        Self {
            partition: alarm.stream_key().partition,
            span,
            lines_max,
            counted: u64::try_from(alarm.log_count).unwrap_or(0),
            lines: Vec::new(),
            line_count: 0,
            missing: Vec::new(),
        }
    }

    /// Reads the offsets, handing each record to `take`, which says what line of the window it is.
    ///
    /// # Errors
    /// Kafka cannot be reached, or refuses.
    pub(super) fn read(
        &mut self,
        config: &KafkaConfig,
        take: &mut dyn FnMut(RawRecord<'_>) -> Option<Line>,
    ) -> Result<(), SourceError> {
        let Some(span) = self.span else {
            return Ok(());
        };
        let reader = match TopicReader::open_span(config, &self.partition, span) {
            Ok(reader) => reader,
            Err(SourceError::MissingTopics { .. }) => {
                let partition = &self.partition;
                self.missing.push(format!("Kafka has no {partition}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for there in reader.partitions().to_vec() {
            self.note_gone(span.first, there.low.min(span.next.0));
            self.note_gone(there.high.max(span.first), span.next.0);
        }
        let mut expected = reader.partitions().first().map_or(span.first, |it| it.low);
        let summary = reader.read(&mut |event| {
            match event {
                TopicEvent::Truncated { next, .. } => self.note_gone(expected, next.0),
                TopicEvent::Record { record, .. } => {
                    expected = record.offset.saturating_add(1);
                    if let Some(line) = take(record) {
                        self.show(line);
                    }
                }
                TopicEvent::Progress { .. } | TopicEvent::PartitionEnd { .. } => {}
            }
            ControlFlow::Continue(())
        });
        summary?;
        self.note_lines();
        Ok(())
    }

    /// Looks which offsets are there, where there is no model to score them with.
    ///
    /// # Errors
    /// Kafka cannot be reached, or refuses.
    pub(super) fn read_unscored(&mut self, config: &KafkaConfig) -> Result<(), SourceError> {
        // Which records are lines of the window takes no model; lateness is left aside.
        self.counted = 0;
        self.read(config, &mut |_| None)
    }

    fn show(&mut self, line: Line) {
        self.line_count += 1;
        if self.lines.len() < self.lines_max {
            self.lines.push(line.into());
        }
    }

    fn note_gone(&mut self, from: i64, to: i64) {
        if from < to {
            let partition = &self.partition;
            self.missing.push(format!(
                "offsets {from} to {} of {partition} are gone",
                to - 1
            ));
        }
    }

    /// Lines may be gone from the midst as well: compaction leaves no gap at either end.
    fn note_lines(&mut self) {
        let found = u64::try_from(self.line_count).unwrap_or(u64::MAX);
        if found < self.counted && self.missing.is_empty() {
            self.missing.push(format!(
                "{found} of the {} lines that were counted are there",
                self.counted
            ));
        }
    }

    /// Returns what is not there, in sentences.
    pub(super) fn missing(&self) -> Vec<String> {
        self.missing.clone()
    }

    /// Returns where the records stand, for a person.
    pub(super) fn place(&self) -> String {
        match self.span {
            Some(span) => format!(
                "{} offsets {} to {}",
                self.partition,
                span.first,
                span.next.0 - 1
            ),
            None => format!("{}: a window without lines", self.partition),
        }
    }
}

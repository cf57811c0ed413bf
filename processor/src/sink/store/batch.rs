//! A batch: at most one row per key, as one statement demands, and every job that rides on it.

use std::{collections::HashMap, sync::Arc};

use super::{
    alarm::alarm_row,
    columns::{AlarmRow, FeaturesRow, ResultRow},
    features_row::features_row,
    row::row,
};
use crate::{
    event::{StreamKey, TopicPartition},
    model::ScoredWindow,
    sink::Ack,
    sink::{AssignmentId, WindowJob, ack::window_ack},
    window::WindowBounds,
};

/// (Service, template) pairs from which a batch takes no further row: what bounds a statement when
/// windows are large.
const PAIRS_MAX: usize = 20_000;

/// A row with all that is written beside it, the fence it is written under, and the acks due when
/// it is durable.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) row: ResultRow,
    pub(super) features: FeaturesRow,
    pub(super) alarm: Option<AlarmRow>,
    pub(super) scored: Arc<ScoredWindow>,
    pub(super) fence: i64,
    pub(super) partition: TopicPartition,
    pub(super) assignment: AssignmentId,
    pub(super) acks: Vec<Ack>,
}

/// Rows on their way into one statement.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    by_key: HashMap<(StreamKey, WindowBounds), usize>,
    pairs: usize,
}

impl Batch {
    /// Adds a job. One whose key is there already is merged by the rule of the upsert (final beats
    /// provisional, complete beats partial, then later beats earlier); if it comes from another
    /// assignment it is handed back, to open the next batch: only one of their fences can hold. So is
    /// one that takes an alarm back: the alarm is written first.
    pub(super) fn push(&mut self, job: WindowJob) -> Result<(), WindowJob> {
        let window = &job.scored.window;
        let key = (window.stream.clone(), window.bounds);
        let Some(&index) = self.by_key.get(&key) else {
            self.by_key.insert(key, self.entries.len());
            self.pairs += window.content.pairs.len();
            self.entries.push(Entry {
                row: row(&job),
                features: features_row(&job.scored),
                alarm: alarm_row(&job),
                scored: Arc::clone(&job.scored),
                fence: job.fence,
                partition: window.stream.partition.clone(),
                assignment: job.assignment,
                acks: vec![window_ack(&job)],
            });
            return Ok(());
        };
        let entry = &mut self.entries[index];
        if entry.fence != job.fence || entry.assignment != job.assignment {
            return Err(job);
        }
        let (later, alarm) = (row(&job), alarm_row(&job));
        let replaces = replaces(&later, &entry.row);
        if replaces && entry.alarm.is_some() && alarm.is_none() {
            // What was said stays in the table, though the window turned out to be none.
            return Err(job);
        }
        entry.acks.push(window_ack(&job));
        if replaces {
            entry.row = later;
            entry.alarm = alarm;
            entry.features = features_row(&job.scored);
            entry.scored = job.scored;
        }
        Ok(())
    }

    /// Returns whether the batch is to be written before another row is added.
    pub(super) fn is_full(&self, rows_max: usize) -> bool {
        self.entries.len() >= rows_max || self.pairs >= PAIRS_MAX
    }

    /// Returns the rows, those of each stream in window order.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        let mut entries = self.entries;
        entries.sort_by(|a, b| {
            (&a.row.stream, a.row.window_start).cmp(&(&b.row.stream, b.row.window_start))
        });
        entries
    }
}

/// Returns whether a later row takes the place of an earlier one of the same key: the `WHERE` of
/// the upsert.
fn replaces(later: &ResultRow, earlier: &ResultRow) -> bool {
    earlier.provisional || (!later.provisional && (earlier.partial || !later.partial))
}

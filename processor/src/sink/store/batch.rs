//! A batch: at most one row per key, as one statement demands, and every job that rides on it.

use std::collections::HashMap;

use super::{columns::Row, row::row};
use crate::{
    event::{StreamKey, TopicPartition},
    sink::Ack,
    sink::{AssignmentId, WindowJob, ack::window_ack},
    window::WindowBounds,
};

/// A row, the fence it is written under, and the acks due when it is durable.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) row: Row,
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
}

impl Batch {
    /// Adds a job. One whose key is there already is merged by the rule of the upsert (final beats
    /// provisional, complete beats partial, then later beats earlier); if it comes from another
    /// assignment it is handed back, to open the next batch: only one of their fences can hold.
    pub(super) fn push(&mut self, job: WindowJob) -> Result<(), WindowJob> {
        let window = &job.scored.window;
        let key = (window.stream.clone(), window.bounds);
        let Some(&index) = self.by_key.get(&key) else {
            self.by_key.insert(key, self.entries.len());
            self.entries.push(Entry {
                row: row(&job),
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
        let later = row(&job);
        entry.acks.push(window_ack(&job));
        if replaces(&later, &entry.row) {
            entry.row = later;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
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
fn replaces(later: &Row, earlier: &Row) -> bool {
    earlier.provisional || (!later.provisional && (earlier.partial || !later.partial))
}

//! What of a partition may be committed: the offset ledger.
//!
//! ```text
//! window opened / closed / acked ─┐
//! dead letter opened / acked ─────┼─► PartitionLedger ──► (next offset, metadata)
//! position, watermark ────────────┘
//! ```
//!
//! The commit is the smallest first offset of the windows not yet done and of the dead letters not
//! yet durable, else the position. It never passes a record that a restart would need again and it
//! never goes back. Pure: no Kafka, no clock; unknown windows and surplus acks are counted, not
//! trusted.

use std::collections::BTreeMap;

use super::{CommitMetadata, IdleMark};
use crate::event::{EventTime, NextOffset, Partial};

/// What keeps the commit from passing an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    offset: i64,
    /// Largest event time of the records before `offset`.
    max_event_time_before: Option<EventTime>,
}

/// How far a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Records may still come.
    Open,
    /// Final; so many acks are missing. With 0 it waits for an older window only.
    Closed { outstanding_acks: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Window {
    /// `None` for a window without records.
    hold: Option<Hold>,
    stage: Stage,
}

impl Window {
    const fn is_settled(&self) -> bool {
        matches!(
            self.stage,
            Stage::Closed {
                outstanding_acks: 0
            }
        )
    }
}

/// The windows and dead letters of one partition that are not done, and what may be committed.
#[derive(Clone, Debug)]
pub struct PartitionLedger {
    partial: Partial,
    position: NextOffset,
    max_event_time: Option<EventTime>,
    closed_through: Option<EventTime>,
    /// By window start. The first one is never settled: settled ones leave from the front.
    windows: BTreeMap<EventTime, Window>,
    /// By offset; the value is the largest event time before it.
    letters: BTreeMap<i64, Option<EventTime>>,
    /// The last move of the watermark by the clock.
    idle: Option<IdleMark>,
    /// The largest commit point given out.
    committed: (NextOffset, CommitMetadata),
    stray_acks: u64,
}

impl PartitionLedger {
    /// Returns the ledger of a partition that is read from `next` on; `metadata` is what rode in
    /// the commit that reading starts from, or that nothing is done if there was none.
    #[must_use]
    pub fn new(next: NextOffset, metadata: CommitMetadata) -> Self {
        Self {
            partial: metadata.partial,
            position: next,
            max_event_time: metadata.max_event_time,
            closed_through: metadata.done_through,
            windows: BTreeMap::new(),
            letters: BTreeMap::new(),
            idle: metadata.idle,
            committed: (next, metadata),
            stray_acks: 0,
        }
    }

    /// Notes the first record of a window (of a further stream of it, where streams share the
    /// partition). `max_event_time_before` is the largest event time of the records before it.
    pub fn window_opened(
        &mut self,
        start: EventTime,
        first_offset: i64,
        max_event_time_before: Option<EventTime>,
    ) {
        let hold = Hold {
            offset: first_offset,
            max_event_time_before,
        };
        let window = self.windows.entry(start).or_insert(Window {
            hold: None,
            stage: Stage::Open,
        });
        if window.hold.is_none_or(|held| hold.offset < held.offset) {
            window.hold = Some(hold);
        }
    }

    /// Notes that a window is final and that `outstanding_acks` acks will tell it durable; 0 means
    /// that it is. Windows without records are closed without having been opened. A second call
    /// for a window that is not done adds its acks.
    pub fn window_closed(&mut self, start: EventTime, outstanding_acks: u32) {
        let window = self.windows.entry(start).or_insert(Window {
            hold: None,
            stage: Stage::Open,
        });
        window.stage = match window.stage {
            Stage::Open => Stage::Closed { outstanding_acks },
            Stage::Closed {
                outstanding_acks: before,
            } => Stage::Closed {
                outstanding_acks: before.saturating_add(outstanding_acks),
            },
        };
        self.retire_settled();
    }

    /// Notes one ack of a closed window. Acks of windows that are open, done or unknown are
    /// ignored and counted.
    pub fn window_acked(&mut self, start: EventTime) {
        match self.windows.get_mut(&start).map(|window| &mut window.stage) {
            Some(Stage::Closed { outstanding_acks }) if *outstanding_acks > 0 => {
                *outstanding_acks -= 1;
                self.retire_settled();
            }
            _ => self.stray_acks += 1,
        }
    }

    /// Notes a record that goes to the dead letters; `max_event_time_before` as for windows.
    pub fn letter_opened(&mut self, offset: i64, max_event_time_before: Option<EventTime>) {
        self.letters.entry(offset).or_insert(max_event_time_before);
    }

    /// Notes that a dead letter is durable. Unknown ones are ignored and counted.
    pub fn letter_acked(&mut self, offset: i64) {
        if self.letters.remove(&offset).is_none() {
            self.stray_acks += 1;
        }
    }

    /// Notes how far reading is: the next offset, the largest event time before it, and the start
    /// of the last window that is closed (all before it are). None of them goes back.
    ///
    /// Windows and letters of the records up to `next` are noted before this is called.
    pub fn advance(
        &mut self,
        next: NextOffset,
        max_event_time: Option<EventTime>,
        closed_through: Option<EventTime>,
    ) {
        self.position = self.position.max(next);
        self.max_event_time = self.max_event_time.max(max_event_time);
        self.closed_through = self.closed_through.max(closed_through);
    }

    /// Notes that the clock is about to move the largest event time to `time`, for all records from
    /// the present position on, which makes the windows up to the one that starts at `through`
    /// final. Returns the mark that says so: what follows from the move may be
    /// written once a commit point with this mark is committed, for then a restart makes the same
    /// move in the same place. `None`, and no move is to be made, while an earlier one still rides
    /// in the commits.
    pub fn mark_idle(&mut self, time: EventTime, through: EventTime) -> Option<IdleMark> {
        if self.commit_point().1.idle.is_some() {
            return None;
        }
        self.idle = Some(IdleMark {
            from: self.position,
            time,
            through,
        });
        self.idle
    }

    /// Notes which windows may lack lines; kept in the metadata until they are done.
    pub fn set_partial(&mut self, partial: Partial) {
        self.partial = partial;
    }

    /// Returns what may be committed now; never less than what it returned before.
    pub fn commit_point(&mut self) -> (NextOffset, CommitMetadata) {
        let (next, max_event_time) = self
            .smallest_hold()
            .map_or((self.position, self.max_event_time), |hold| {
                (NextOffset(hold.offset), hold.max_event_time_before)
            });
        let (committed_next, committed) = &mut self.committed;
        if next >= *committed_next {
            *committed_next = next;
            committed.max_event_time = committed.max_event_time.max(max_event_time);
        }
        committed.done_through = committed.done_through.max(
            // Windows not done are never before the end of what is done.
            match (self.closed_through, self.windows.first_key_value()) {
                (Some(closed), Some((start, _))) => {
                    Some(closed.min(start.saturating_add(-committed.grid.length_ms)))
                }
                (closed, _) => closed,
            },
        );
        // From its place on the largest event time says it as well, but not what made windows final.
        committed.idle = self.idle.filter(|mark| {
            *committed_next < mark.from || committed.done_through < Some(mark.through)
        });
        committed.partial = match self.partial {
            Partial::Through(last) if committed.done_through >= Some(last) => Partial::No,
            partial => partial,
        };
        self.committed
    }

    /// Returns how many windows are open or wait for acks or for an older window.
    #[must_use]
    pub fn windows_pending(&self) -> usize {
        self.windows.len()
    }

    /// Returns how many windows are final but not done.
    #[must_use]
    pub fn windows_closed_pending(&self) -> usize {
        let closed = |window: &&Window| window.stage != Stage::Open;
        self.windows.values().filter(closed).count()
    }

    /// Returns how many dead letters are not durable yet.
    #[must_use]
    pub fn letters_pending(&self) -> usize {
        self.letters.len()
    }

    /// Returns how many acks matched nothing that was waited for.
    #[must_use]
    pub const fn stray_acks(&self) -> u64 {
        self.stray_acks
    }

    /// Returns the offset of the next record to read.
    #[must_use]
    pub const fn position(&self) -> NextOffset {
        self.position
    }

    fn smallest_hold(&self) -> Option<Hold> {
        let letter = self.letters.first_key_value().map(|(offset, before)| Hold {
            offset: *offset,
            max_event_time_before: *before,
        });
        self.windows
            .values()
            .filter_map(|window| window.hold)
            .chain(letter)
            .min_by_key(|hold| hold.offset)
    }

    /// Takes settled windows off the front: windows become done in window order.
    fn retire_settled(&mut self) {
        while let Some(first) = self.windows.first_entry() {
            if !first.get().is_settled() {
                break;
            }
            first.remove();
        }
    }
}

#[cfg(test)]
mod tests;

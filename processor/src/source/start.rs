//! Where reading of an assigned partition begins: a pure decision from what the broker says.
//!
//! The group's commit wins. Where it points at records that are gone, or there is none, or it is
//! not ours, reading starts where it can and the first window is marked `partial`: never a silent
//! jump.

use super::{CommitMetadata, StartPoint};
use crate::event::{NextOffset, TopicPartition};

/// What the group has committed for a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    /// The committed offset; `None` if there is none.
    pub(super) next: Option<i64>,
    /// The metadata, if it is ours.
    pub(super) metadata: Option<CommitMetadata>,
}

/// The offsets a partition holds: `[low, high)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermarks {
    /// The oldest record's offset.
    pub(super) low: i64,
    /// The offset of the next record to come.
    pub(super) high: i64,
}

/// What is worth telling about a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing: reading goes on where it stood.
    Continued,
    /// No commit: reading begins at the oldest record.
    Fresh,
    /// Retention deleted `[from, to)` before it was read.
    Deleted {
        /// First offset that was not read.
        from: i64,
        /// Oldest offset there is.
        to: i64,
    },
    /// The commit lies beyond the end: the topic was made anew or lost its tail.
    BeyondEnd {
        /// The committed offset.
        committed: i64,
        /// The offset of the next record to come.
        high: i64,
    },
    /// The commit's metadata is not ours: somebody moved the offsets.
    Foreign,
}

impl Finding {
    /// Returns how many records were deleted before they were read.
    pub(super) fn deleted(self) -> u64 {
        match self {
            Self::Deleted { from, to } => u64::try_from(to.saturating_sub(from)).unwrap_or(0),
            _ => 0,
        }
    }
}

/// Decides where reading of `partition` begins.
pub(super) fn decide(
    partition: TopicPartition,
    committed: Committed,
    marks: Watermarks,
) -> (StartPoint, Finding) {
    let at_oldest = |metadata, partial| (marks.low, metadata, partial);
    let ((next, metadata, partial), finding) = match committed.next {
        None => (at_oldest(None, marks.low > 0), Finding::Fresh),
        Some(next) if next < marks.low => (
            // What was before the commit is still true of what comes after the hole.
            at_oldest(committed.metadata, true),
            Finding::Deleted {
                from: next,
                to: marks.low,
            },
        ),
        Some(next) if next > marks.high => (
            at_oldest(None, marks.low > 0),
            Finding::BeyondEnd {
                committed: next,
                high: marks.high,
            },
        ),
        // Before the very first record there is nothing to be missed.
        Some(next) if committed.metadata.is_none() => ((next, None, next > 0), Finding::Foreign),
        Some(next) => ((next, committed.metadata, false), Finding::Continued),
    };
    let start = StartPoint {
        partition,
        next: NextOffset(next),
        metadata,
        partial,
    };
    (start, finding)
}

/// Logs what a person should know about a start.
pub(super) fn log(start: &StartPoint, finding: Finding) {
    let (partition, next) = (&start.partition, start.next.0);
    match finding {
        Finding::Continued => {
            tracing::info!(%partition, next, "reading goes on at the committed offset");
        }
        Finding::Fresh => {
            tracing::info!(%partition, next, "no committed offset, reading from the oldest record");
        }
        Finding::Deleted { from, to } => tracing::warn!(
            %partition, from, to, records = finding.deleted(),
            "retention deleted records before they were read; the first window is partial"
        ),
        Finding::BeyondEnd { committed, high } => tracing::warn!(
            %partition, committed, high, next,
            "the committed offset lies beyond the partition's end, was the topic made anew? reading from the oldest record"
        ),
        Finding::Foreign => tracing::warn!(
            %partition, next,
            partial = start.partial,
            "the committed offset is not ours, did somebody move it? streams begin anew there, the first window may be partial"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventTime, WindowGrid};

    const MARKS: Watermarks = Watermarks { low: 10, high: 90 };

    fn ours() -> Option<CommitMetadata> {
        let grid = WindowGrid {
            length_ms: 30_000,
            by_service: false,
        };
        Some(CommitMetadata {
            max_event_time: EventTime::from_millis(5),
            ..CommitMetadata::nothing_done(grid)
        })
    }

    fn decided(
        next: Option<i64>,
        metadata: Option<CommitMetadata>,
        marks: Watermarks,
    ) -> (i64, Option<CommitMetadata>, bool, Finding) {
        let partition = TopicPartition {
            topic: "t".into(),
            partition: 0,
        };
        let (start, finding) = decide(partition, Committed { next, metadata }, marks);
        (start.next.0, start.metadata, start.partial, finding)
    }

    #[test]
    fn our_commit_is_continued() {
        for next in [10, 50, 90] {
            assert_eq!(
                decided(Some(next), ours(), MARKS),
                (next, ours(), false, Finding::Continued)
            );
        }
    }

    #[test]
    fn without_a_commit_the_oldest_record_is_first_and_partial_only_if_others_were_before_it() {
        assert_eq!(decided(None, None, MARKS), (10, None, true, Finding::Fresh));
        let whole = Watermarks { low: 0, high: 90 };
        assert_eq!(decided(None, None, whole), (0, None, false, Finding::Fresh));
    }

    #[test]
    fn a_deleted_range_is_named_and_what_was_before_it_stays_known() {
        let finding = Finding::Deleted { from: 4, to: 10 };
        assert_eq!(decided(Some(4), ours(), MARKS), (10, ours(), true, finding));
        assert_eq!(finding.deleted(), 6);
    }

    #[test]
    fn a_commit_beyond_the_end_belongs_to_another_topic() {
        let finding = Finding::BeyondEnd {
            committed: 91,
            high: 90,
        };
        assert_eq!(decided(Some(91), ours(), MARKS), (10, None, true, finding));
    }

    #[test]
    fn a_commit_that_is_not_ours_makes_the_first_window_partial_unless_nothing_is_before_it() {
        assert_eq!(
            decided(Some(50), None, MARKS),
            (50, None, true, Finding::Foreign)
        );
        let whole = Watermarks { low: 0, high: 90 };
        assert_eq!(
            decided(Some(0), None, whole),
            (0, None, false, Finding::Foreign)
        );
    }
}

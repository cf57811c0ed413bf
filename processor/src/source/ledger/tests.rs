use std::collections::{BTreeMap, btree_map::Entry};

use proptest::prelude::*;

use super::*;
use crate::event::WindowGrid;

const LENGTH_MS: i64 = 30_000;

fn at(seconds: i64) -> EventTime {
    EventTime::from_millis(seconds * 1000).unwrap()
}

fn ledger() -> PartitionLedger {
    PartitionLedger::new(NextOffset(100), metadata(None, None))
}

fn metadata(max_event_time: Option<i64>, done_through: Option<i64>) -> CommitMetadata {
    CommitMetadata {
        max_event_time: max_event_time.map(at),
        done_through: done_through.map(at),
        ..CommitMetadata::nothing_done(WindowGrid {
            length_ms: LENGTH_MS,
            by_service: false,
        })
    }
}

#[test]
fn windows_that_may_lack_lines_are_known_until_they_are_done() {
    let mut ledger = ledger();
    ledger.set_partial(Partial::Through(at(30)));
    ledger.window_opened(at(30), 100, None);
    ledger.advance(NextOffset(110), Some(at(70)), Some(at(30)));
    ledger.window_closed(at(30), 1);
    assert_eq!(ledger.commit_point().1.partial, Partial::Through(at(30)));
    ledger.window_acked(at(30));
    assert_eq!(ledger.commit_point().1.partial, Partial::No);
}

#[test]
fn a_move_by_the_clock_rides_in_the_commits_until_they_have_passed_it() {
    let mut ledger = ledger();
    ledger.window_opened(at(30), 100, None);
    ledger.advance(NextOffset(110), Some(at(45)), None);
    let mark = ledger.mark_idle(at(62), at(30));
    assert_eq!(mark.map(|mark| mark.from), Some(NextOffset(110)));
    assert_eq!(ledger.mark_idle(at(92), at(60)), None, "one at a time");
    ledger.advance(NextOffset(0), Some(at(62)), Some(at(30)));
    ledger.window_closed(at(30), 1);
    let (next, held) = ledger.commit_point();
    assert_eq!((next, held.idle), (NextOffset(100), mark));
    // A restart from there knows it as well.
    let mut restarted = PartitionLedger::new(next, held);
    assert_eq!(restarted.commit_point(), (next, held));
    ledger.window_acked(at(30));
    let passed = metadata(Some(62), Some(30));
    assert_eq!(ledger.commit_point(), (NextOffset(110), passed));
    assert!(ledger.mark_idle(at(92), at(60)).is_some());
}

#[test]
fn a_move_by_the_clock_rides_on_while_an_empty_window_it_closed_is_not_done() {
    let mut ledger = ledger();
    let mark = ledger.mark_idle(at(62), at(30));
    ledger.advance(NextOffset(0), Some(at(62)), Some(at(30)));
    ledger.window_closed(at(30), 1);
    assert_eq!(ledger.commit_point().1.idle, mark);
    ledger.window_acked(at(30));
    assert_eq!(ledger.commit_point().1.idle, None);
}

#[test]
fn a_fresh_ledger_commits_where_it_starts() {
    let recovered = metadata(Some(95), Some(30));
    let mut ledger = PartitionLedger::new(NextOffset(7), recovered);
    assert_eq!(ledger.commit_point(), (NextOffset(7), recovered));
}

#[test]
fn an_open_window_holds_its_first_offset_and_the_time_before_it() {
    let mut ledger = ledger();
    ledger.advance(NextOffset(105), Some(at(20)), None);
    ledger.window_opened(at(30), 105, Some(at(20)));
    ledger.advance(NextOffset(120), Some(at(45)), None);
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(105), metadata(Some(20), None))
    );
}

#[test]
fn an_older_window_that_starts_later_does_not_free_the_younger_ones_offset() {
    let mut ledger = ledger();
    ledger.window_opened(at(30), 100, None);
    ledger.window_opened(at(0), 103, Some(at(31)));
    ledger.advance(NextOffset(110), Some(at(33)), Some(at(0)));
    ledger.window_closed(at(0), 1);
    ledger.window_acked(at(0));
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(100), metadata(None, Some(0)))
    );
}

#[test]
fn windows_are_done_in_order_whatever_the_order_of_acks() {
    let mut ledger = ledger();
    ledger.window_opened(at(0), 100, None);
    ledger.window_opened(at(30), 110, Some(at(29)));
    ledger.advance(NextOffset(120), Some(at(70)), Some(at(30)));
    ledger.window_closed(at(0), 2);
    ledger.window_closed(at(30), 1);
    ledger.window_acked(at(30));
    ledger.window_acked(at(0));
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(100), metadata(None, Some(-30)))
    );
    assert_eq!(ledger.windows_pending(), 2);
    ledger.window_acked(at(0));
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(120), metadata(Some(70), Some(30)))
    );
    assert_eq!(ledger.windows_pending(), 0);
}

#[test]
fn an_empty_window_holds_no_offset_but_its_turn() {
    let mut ledger = ledger();
    ledger.advance(NextOffset(130), Some(at(100)), Some(at(60)));
    ledger.window_closed(at(60), 1);
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(130), metadata(Some(100), Some(30)))
    );
    ledger.window_acked(at(60));
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(130), metadata(Some(100), Some(60)))
    );
}

#[test]
fn a_letter_holds_its_offset_until_it_is_durable() {
    let mut ledger = ledger();
    ledger.letter_opened(101, Some(at(3)));
    ledger.advance(NextOffset(140), Some(at(9)), None);
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(101), metadata(Some(3), None))
    );
    ledger.letter_acked(101);
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(140), metadata(Some(9), None))
    );
}

#[test]
fn surplus_and_unknown_acks_are_counted_and_change_nothing() {
    let mut ledger = ledger();
    ledger.window_opened(at(0), 100, None);
    ledger.window_acked(at(0));
    ledger.window_acked(at(90));
    ledger.letter_acked(55);
    ledger.window_closed(at(0), 1);
    ledger.window_acked(at(0));
    ledger.window_acked(at(0));
    ledger.advance(NextOffset(101), Some(at(32)), Some(at(0)));
    assert_eq!(ledger.stray_acks(), 4);
    assert_eq!(
        ledger.commit_point(),
        (NextOffset(101), metadata(Some(32), Some(0)))
    );
}

#[test]
fn streams_that_share_a_window_add_their_acks_and_keep_the_smallest_offset() {
    let mut ledger = ledger();
    ledger.window_opened(at(0), 104, Some(at(2)));
    ledger.window_opened(at(0), 102, Some(at(1)));
    ledger.window_opened(at(0), 109, Some(at(3)));
    ledger.advance(NextOffset(120), Some(at(40)), Some(at(0)));
    ledger.window_closed(at(0), 1);
    ledger.window_closed(at(0), 2);
    for _ in 0..2 {
        ledger.window_acked(at(0));
        assert_eq!(
            ledger.commit_point(),
            (NextOffset(102), metadata(Some(1), Some(-30)))
        );
    }
    ledger.window_acked(at(0));
    assert_eq!(ledger.commit_point().0, NextOffset(120));
}

/// One thing that happens to a partition; indexes are taken modulo what is there.
#[derive(Clone, Debug)]
enum Step {
    /// A record `ahead` windows after the oldest open one opens or joins a window.
    Record { ahead: i64 },
    /// A record goes to the dead letters.
    Letter,
    /// The oldest open window closes, with so many acks to come.
    Close { acks: u32 },
    /// The window after the closed ones closes empty.
    CloseEmpty { acks: u32 },
    /// One ack for the nth window that waits for some.
    AckWindow { nth: usize },
    /// The nth letter becomes durable.
    AckLetter { nth: usize },
    /// An ack for nothing.
    StrayAck { window: i64, offset: i64 },
    /// The commit is asked for.
    Commit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_i64).prop_map(|ahead| Step::Record { ahead }),
        1 => Just(Step::Letter),
        2 => (0..4_u32).prop_map(|acks| Step::Close { acks }),
        1 => (0..3_u32).prop_map(|acks| Step::CloseEmpty { acks }),
        5 => any::<usize>().prop_map(|nth| Step::AckWindow { nth }),
        2 => any::<usize>().prop_map(|nth| Step::AckLetter { nth }),
        1 => (1000..2000_i64, 0..50_i64)
            .prop_map(|(window, offset)| Step::StrayAck { window, offset }),
        3 => Just(Step::Commit),
    ];
    prop::collection::vec(step, 0..200)
}

/// The same partition, kept naively: what is not done, by definition.
#[derive(Default)]
struct Oracle {
    next: i64,
    /// Event times of all records by offset, to recompute the maximum before any of them.
    times: Vec<i64>,
    /// Index of the first window that is not closed.
    open_from: i64,
    /// First offset (if any) and acks to come (`None` while open), by window index.
    windows: BTreeMap<i64, (Option<i64>, Option<u32>)>,
    letters: Vec<i64>,
}

impl Oracle {
    const FIRST_OFFSET: i64 = 100;

    fn max_before(&self, next: i64) -> Option<EventTime> {
        let count = usize::try_from(next - Self::FIRST_OFFSET).unwrap();
        self.times.iter().take(count).copied().max().map(at)
    }

    fn not_done(&self) -> impl Iterator<Item = (&i64, &(Option<i64>, Option<u32>))> {
        let mut undone = false;
        self.windows.iter().filter(move |(_, (_, acks))| {
            undone |= *acks != Some(0);
            undone
        })
    }

    fn expected_next(&self) -> i64 {
        self.not_done()
            .filter_map(|(_, (first, _))| *first)
            .chain(self.letters.iter().copied())
            .min()
            .unwrap_or(self.next)
    }

    fn expected_done_through(&self) -> Option<EventTime> {
        let closed = (self.open_from > 0).then(|| self.open_from - 1);
        let done = match self.not_done().next() {
            Some((index, _)) => closed.map(|closed| closed.min(index - 1)),
            None => closed,
        };
        done.map(|index| at(index * 30))
    }

    fn advance(&mut self, ledger: &mut PartitionLedger, time: Option<i64>) {
        // Letters without a time of their own do not move the maximum.
        self.times.push(time.unwrap_or(-2000));
        self.next += 1;
        self.tell(ledger);
    }

    fn tell(&self, ledger: &mut PartitionLedger) {
        let max = self.max_before(self.next).filter(|time| *time > at(-1000));
        let closed = (self.open_from > 0).then(|| at((self.open_from - 1) * 30));
        ledger.advance(NextOffset(self.next), max, closed);
    }

    fn before(&self) -> Option<EventTime> {
        self.max_before(self.next).filter(|time| *time > at(-1000))
    }

    fn apply(&mut self, step: &Step, ledger: &mut PartitionLedger) {
        match *step {
            Step::Record { ahead } => {
                let index = self.open_from + ahead;
                let offset = self.next;
                let entry = self.windows.entry(index).or_insert((Some(offset), None));
                if entry.0 == Some(offset) {
                    ledger.window_opened(at(index * 30), offset, self.before());
                }
                self.advance(ledger, Some(index * 30 + 7));
            }
            Step::Letter => {
                self.letters.push(self.next);
                ledger.letter_opened(self.next, self.before());
                self.advance(ledger, None);
            }
            Step::Close { acks } => {
                let index = self.windows.range(self.open_from..).next();
                if let Some(index) = index.map(|(index, _)| *index) {
                    self.windows.get_mut(&index).unwrap().1 = Some(acks);
                    ledger.window_closed(at(index * 30), acks);
                    self.open_from = index + 1;
                    self.tell(ledger);
                }
            }
            Step::CloseEmpty { acks } => {
                let index = self.open_from;
                if let Entry::Vacant(window) = self.windows.entry(index) {
                    window.insert((None, Some(acks)));
                    ledger.window_closed(at(index * 30), acks);
                    self.open_from += 1;
                    self.tell(ledger);
                }
            }
            Step::AckWindow { nth } => {
                let waits =
                    |(_, acks): &&mut (Option<i64>, Option<u32>)| acks.is_some_and(|n| n > 0);
                let waiting: Vec<i64> = self
                    .windows
                    .iter_mut()
                    .filter(|(_, window)| waits(window))
                    .map(|(index, _)| *index)
                    .collect();
                if !waiting.is_empty() {
                    let index = waiting[nth % waiting.len()];
                    let acks = self.windows.get_mut(&index).unwrap().1.as_mut().unwrap();
                    *acks -= 1;
                    ledger.window_acked(at(index * 30));
                }
            }
            Step::AckLetter { nth } => {
                if !self.letters.is_empty() {
                    let offset = self.letters.remove(nth % self.letters.len());
                    ledger.letter_acked(offset);
                }
            }
            Step::StrayAck { window, offset } => {
                ledger.window_acked(at(window * 30));
                ledger.letter_acked(offset);
            }
            Step::Commit => {}
        }
    }
}

proptest! {
    #[test]
    fn the_commit_is_the_first_record_a_restart_needs(steps in steps()) {
        let mut ledger = ledger();
        let mut oracle = Oracle { next: Oracle::FIRST_OFFSET, ..Oracle::default() };
        let mut last = ledger.commit_point();
        for step in &steps {
            oracle.apply(step, &mut ledger);
            // Asking seldom or often must not matter.
            if !matches!(step, Step::Commit) {
                continue;
            }
            let (next, metadata) = ledger.commit_point();
            prop_assert_eq!(next, NextOffset(oracle.expected_next()));
            prop_assert!(next >= last.0, "the commit went back");
            prop_assert!(metadata.done_through >= last.1.done_through, "done_through went back");
            prop_assert_eq!(metadata.done_through, oracle.expected_done_through());
            let before = oracle.max_before(next.0).filter(|time| *time > at(-1000));
            prop_assert_eq!(metadata.max_event_time, before);
            last = (next, metadata);
        }
    }

    #[test]
    fn all_acked_means_committed_to_the_position(steps in steps()) {
        let mut ledger = ledger();
        let mut oracle = Oracle { next: Oracle::FIRST_OFFSET, ..Oracle::default() };
        for step in &steps {
            oracle.apply(step, &mut ledger);
        }
        for _ in 0..steps.len() {
            oracle.apply(&Step::Close { acks: 1 }, &mut ledger);
        }
        let to_come = 4 * steps.len();
        for _ in 0..to_come {
            oracle.apply(&Step::AckWindow { nth: 0 }, &mut ledger);
            oracle.apply(&Step::AckLetter { nth: 0 }, &mut ledger);
        }
        prop_assert_eq!(ledger.commit_point().0, NextOffset(oracle.next));
        prop_assert_eq!(ledger.windows_pending(), 0);
        prop_assert_eq!(ledger.letters_pending(), 0);
    }

    #[test]
    fn any_calls_at_all_neither_panic_nor_go_back(
        calls in prop::collection::vec((0..6_u8, 0..40_i64, 0..4_u32), 0..300),
    ) {
        let mut ledger = ledger();
        let mut last = ledger.commit_point();
        for (call, value, acks) in calls {
            match call {
                0 => ledger.window_opened(at(value * 30), 100 + value, Some(at(value))),
                1 => ledger.window_closed(at(value * 30), acks),
                2 => ledger.window_acked(at(value * 30)),
                3 => ledger.letter_opened(100 + value, Some(at(value))),
                4 => ledger.letter_acked(100 + value),
                _ => ledger.advance(NextOffset(100 + value), Some(at(value)), Some(at(value * 30))),
            }
            let now = ledger.commit_point();
            prop_assert!(now.0 >= last.0);
            prop_assert!(now.1.max_event_time >= last.1.max_event_time);
            prop_assert!(now.1.done_through >= last.1.done_through);
            last = now;
        }
    }
}

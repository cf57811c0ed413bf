//! Whether a topic holds enough to learn from: how much event time its windows cover.
//!
//! Windows are counted, not the time between the first line and the last: one line with a bad clock
//! must not make an hour of two windows.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use crate::{event::EventTime, model::WINDOWS_MIN, window::EMPTY_ROWS_MAX};

/// The windows that lines were seen of.
#[derive(Debug)]
pub(super) struct Enough {
    length_ms: i64,
    asked_ms: i64,
    slots: BTreeSet<i64>,
    /// Windows covered, kept up with `slots`: it is asked for with every line.
    covered: i64,
}

impl Enough {
    /// Begins to count windows of `length_ms`, of which `asked` of time is enough.
    pub(super) fn of(asked: Duration, length_ms: i64) -> Self {
        Self {
            length_ms: length_ms.max(1),
            asked_ms: i64::try_from(asked.as_millis()).unwrap_or(i64::MAX),
            slots: BTreeSet::new(),
            covered: 0,
        }
    }

    /// Takes note of a line. Memory is bounded by the time asked for: beyond it nothing is noted.
    pub(super) fn add(&mut self, time: EventTime) {
        let slot = time.as_millis().div_euclid(self.length_ms);
        if self.is_enough() || !self.slots.insert(slot) {
            return;
        }
        let before = self.slots.range(..slot).next_back().copied();
        let after = self
            .slots
            .range((Excluded(slot), Unbounded))
            .next()
            .copied();
        let added = step(before, Some(slot)) + step(Some(slot), after) - step(before, after);
        // The first window of all covers itself; any other is covered by the step to it.
        self.covered += if self.slots.len() == 1 { 1 } else { added };
    }

    /// Returns whether it is enough.
    pub(super) fn is_enough(&self) -> bool {
        self.slots.len() >= WINDOWS_MIN && self.covered_ms() >= self.asked_ms
    }

    /// Returns the time covered.
    pub(super) fn covered(&self) -> Duration {
        Duration::from_millis(self.covered_ms().unsigned_abs())
    }

    /// Returns the time asked for.
    pub(super) fn asked(&self) -> Duration {
        Duration::from_millis(self.asked_ms.unsigned_abs())
    }

    /// Asks for so much more than there is: what there is turned out not to do.
    pub(super) fn ask_for_more(&mut self, more: Duration) {
        let more_ms = i64::try_from(more.as_millis()).unwrap_or(i64::MAX);
        self.asked_ms = self.covered_ms().saturating_add(more_ms);
    }

    fn covered_ms(&self) -> i64 {
        self.covered.saturating_mul(self.length_ms)
    }
}

/// Returns the windows from one with lines to the next, none if one of them is not there. Empty
/// windows between the two count as far as they get rows of their own.
fn step(one: Option<i64>, next: Option<i64>) -> i64 {
    let windows = one.zip(next).map(|(one, next)| next - one);
    windows.map_or(0, |it| it.min(i64::from(EMPTY_ROWS_MAX) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enough() -> Enough {
        Enough::of(Duration::from_secs(1_800), 30_000)
    }

    fn at(seconds: i64) -> EventTime {
        EventTime::from_millis(seconds * 1_000).unwrap()
    }

    #[test]
    fn half_an_hour_of_lines_is_half_an_hour() {
        let mut enough = enough();
        for second in 0..1_770 {
            enough.add(at(second));
            assert!(!enough.is_enough(), "{second}");
        }
        enough.add(at(1_770));
        assert!(enough.is_enough());
        assert_eq!(enough.covered(), Duration::from_secs(1_800));
    }

    #[test]
    fn a_bad_clock_makes_no_hour() {
        let mut enough = enough();
        enough.add(at(0));
        enough.add(at(1_000_000_000));
        assert!(!enough.is_enough());
        assert_eq!(enough.covered(), Duration::from_secs(12 * 30));
    }

    #[test]
    fn the_order_of_lines_does_not_matter() {
        // With a gap longer than what counts of it.
        let slots = [0, 1, 2, 5, 9, 40, 41, 43];
        let covered = |order: &[usize]| {
            let mut enough = enough();
            for place in order.iter().chain(order) {
                enough.add(at(slots[*place] * 30));
            }
            enough.covered()
        };
        let in_order = covered(&[0, 1, 2, 3, 4, 5, 6, 7]);
        let windows = 1 + 1 + 1 + 3 + 4 + 11 + 1 + 2;
        assert_eq!(in_order, Duration::from_secs(windows * 30));
        assert_eq!(covered(&[7, 6, 5, 4, 3, 2, 1, 0]), in_order);
        assert_eq!(covered(&[5, 0, 7, 2, 4, 1, 6, 3]), in_order);
    }

    #[test]
    fn a_few_windows_are_never_enough() {
        let mut enough = enough();
        (0..10).for_each(|line| enough.add(at(line * 300)));
        assert!(enough.covered() >= enough.asked() && !enough.is_enough());
    }

    #[test]
    fn more_is_asked_for_beyond_what_there_is() {
        let mut enough = enough();
        (0..1_800).for_each(|second| enough.add(at(second)));
        enough.ask_for_more(Duration::from_secs(600));
        assert!(!enough.is_enough());
        (1_800..2_400).for_each(|second| enough.add(at(second)));
        assert!(enough.is_enough());
    }
}

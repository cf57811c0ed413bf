//! What people decided of templates: adopted or forgotten by hand, in one stream, from a window on.
//!
//! Like a mute, a decision holds by event time, so that a window that is read again is judged as the
//! first time. No clock is read here.

use std::collections::HashMap;

use crate::event::EventTime;

/// A template adopted or forgotten by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its number in the table: of two the larger holds.
    pub id: i64,
    /// The stream, as it is written.
    pub stream: String,
    /// Identity of the template.
    pub template: u64,
    /// It is known from then on; else it is new, however often it comes.
    pub adopt: bool,
    /// Start of the first window it holds for.
    pub active_from: EventTime,
}

/// All decisions there are, by stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    by_stream: HashMap<String, Vec<Decision>>,
}

impl Decisions {
    pub(super) fn new(decisions: impl IntoIterator<Item = Decision>) -> Self {
        let mut by_stream: HashMap<String, Vec<Decision>> = HashMap::new();
        for decision in decisions {
            let of_stream = by_stream.entry(decision.stream.clone()).or_default();
            of_stream.push(decision);
        }
        for decisions in by_stream.values_mut() {
            // The newest of a template first.
            decisions.sort_by_key(|decision| (decision.template, std::cmp::Reverse(decision.id)));
        }
        Self { by_stream }
    }

    pub(super) fn len(&self) -> usize {
        self.by_stream.values().map(Vec::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_stream.is_empty()
    }

    /// Returns what holds for the window of `stream` that starts at `start`: templates, in order, and
    /// whether they are adopted.
    pub(super) fn at(&self, stream: &str, start: EventTime) -> Vec<(u64, bool)> {
        let of_stream = self.by_stream.get(stream).into_iter().flatten();
        let active = of_stream.filter(|decision| decision.active_from <= start);
        let mut held: Vec<(u64, bool)> = active.map(|it| (it.template, it.adopt)).collect();
        held.dedup_by_key(|(template, _)| *template);
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_decision_that_is_active_holds() {
        let at = |millis| EventTime::from_millis(millis).unwrap();
        let decision = |id, template, adopt, active_from| Decision {
            id,
            stream: "t/0".to_owned(),
            template,
            adopt,
            active_from: at(active_from),
        };
        let decisions = Decisions::new([
            decision(3, 7, true, 90_000),
            decision(1, 7, true, 30_000),
            decision(2, 7, false, 60_000),
            decision(4, 9, true, 60_000),
        ]);
        assert!(decisions.at("t/0", at(0)).is_empty());
        assert_eq!(decisions.at("t/0", at(30_000)), [(7, true)]);
        assert_eq!(decisions.at("t/0", at(60_000)), [(7, false), (9, true)]);
        assert_eq!(decisions.at("t/0", at(90_000)), [(7, true), (9, true)]);
        assert!(decisions.at("t/1", at(90_000)).is_empty());
    }
}

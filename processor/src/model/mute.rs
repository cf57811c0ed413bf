//! Patterns: what an alarm is about, and what a stream is muted about.
//!
//! ```text
//! alarm ─► pattern (its fewest parts without which it is none) ─► somebody calls it false ─► mutes
//! window + mutes of its stream ─► judged on what remains
//! ```
//!
//! A mute holds for windows that start in `[active_from, expires_at)`: by event time, so that a
//! window that is read again is judged as the first time. No clock is read here.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    by_hand::{Decision, Decisions},
    profile::hex_u64,
    signals::Signals,
};
use crate::{
    event::{EventTime, StreamKey},
    features::Observed,
};

/// A number of lines is worth a word from this -ln p on: chance brings it once in 20.
const FELT_NATS: f64 = 3.0;

/// One part of what an alarm is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Pattern {
    /// Lines of a template: their being new, surprising, repeated or away. All lines of a service
    /// go by a text of their own when they stay away.
    Template {
        /// Identity of the template.
        #[serde(with = "hex_u64")]
        template: u64,
        /// Its masked text, for people.
        text: String,
    },
    /// The number of `ERROR` and `FATAL` lines.
    Critical,
    /// The number of lines of the stream: too many, too few or none.
    Volume,
}

/// A pattern that raises no alarm in a stream for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mute {
    /// Its number in the table.
    pub id: i64,
    /// The stream, as it is written.
    pub stream: String,
    /// What is muted.
    pub pattern: Pattern,
    /// Start of the first window it holds for.
    pub active_from: EventTime,
    /// Windows that start at this time or later are judged in full again.
    pub expires_at: EventTime,
}

impl Mute {
    /// Returns whether the window has something of what is muted; `silent` if it is one of a silence
    /// that would be an alarm.
    pub(super) fn is_felt(&self, observed: &Observed, signals: &Signals, silent: bool) -> bool {
        match &self.pattern {
            Pattern::Template { template, .. } => {
                let missing = signals.missing.filter(|_| signals.raw.absence >= FELT_NATS);
                let surplus = signals.surplus.filter(|_| signals.raw.drift >= FELT_NATS);
                observed.pairs.iter().any(|pair| pair.template == *template)
                    || missing.is_some_and(|missing| missing.id == *template)
                    || surplus.is_some_and(|surplus| surplus.holds(*template))
            }
            Pattern::Critical => signals.raw.critical >= FELT_NATS,
            Pattern::Volume => silent || signals.raw.volume >= FELT_NATS,
        }
    }
}

/// All mutes there are, by stream, and what else people decided of streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutes {
    by_stream: HashMap<String, Vec<Mute>>,
    decisions: Decisions,
}

impl Mutes {
    /// Returns these mutes; those of a stream hold in the order of their numbers.
    #[must_use]
    pub fn new(mutes: impl IntoIterator<Item = Mute>) -> Self {
        let mut by_stream: HashMap<String, Vec<Mute>> = HashMap::new();
        for mute in mutes {
            by_stream.entry(mute.stream.clone()).or_default().push(mute);
        }
        for mutes in by_stream.values_mut() {
            mutes.sort_by_key(|mute| mute.id);
        }
        Self {
            by_stream,
            decisions: Decisions::default(),
        }
    }

    /// Returns them with templates adopted or forgotten by hand.
    #[must_use]
    pub fn with_decisions(self, decisions: impl IntoIterator<Item = Decision>) -> Self {
        Self {
            decisions: Decisions::new(decisions),
            ..self
        }
    }

    /// Returns the templates that people decided of, for the window of `stream` that starts at `start`.
    pub(super) fn decided(&self, stream: &StreamKey, start: EventTime) -> Vec<(u64, bool)> {
        if self.decisions.is_empty() {
            return Vec::new();
        }
        self.decisions.at(&table_name(stream), start)
    }

    /// Returns how many there are, decisions included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_stream.values().map(Vec::len).sum::<usize>() + self.decisions.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns those that hold for the window of `stream` that starts at `start`.
    pub(super) fn at(&self, stream: &StreamKey, start: EventTime) -> Vec<&Mute> {
        if self.by_stream.is_empty() {
            return Vec::new();
        }
        let of_stream = self.by_stream.get(&table_name(stream));
        let mutes = of_stream.into_iter().flatten();
        mutes
            .filter(|mute| mute.active_from <= start && start < mute.expires_at)
            .collect()
    }
}

/// A stream's name as the table has it, which knows no NUL.
fn table_name(stream: &StreamKey) -> String {
    stream.to_string().replace('\0', "\u{fffd}")
}

/// What of a window is left out of its judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Aside {
    /// Places of pairs, in order.
    pub(super) places: Vec<usize>,
    /// Templates, whether they came or stayed away.
    templates: Vec<u64>,
    /// The number of `ERROR` and `FATAL` lines.
    pub(super) critical: bool,
    /// The number of lines.
    pub(super) volume: bool,
}

impl Aside {
    /// Leaves out what these mutes say.
    pub(super) fn of(mutes: &[&Mute], observed: &Observed) -> Self {
        let mut aside = Self::default();
        for mute in mutes {
            aside.add(&mute.pattern, observed);
        }
        aside
    }

    /// Leaves `pattern` out as well.
    pub(super) fn add(&mut self, pattern: &Pattern, observed: &Observed) {
        match pattern {
            Pattern::Critical => self.critical = true,
            Pattern::Volume => self.volume = true,
            Pattern::Template { template, .. } => {
                let places = (0..).zip(&observed.pairs);
                let of_template = places.filter(|(_, pair)| pair.template == *template);
                self.add_places(of_template.map(|(place, _)| place));
                self.templates.push(*template);
            }
        }
    }

    /// Leaves the pairs at `places` out as well.
    pub(super) fn add_places(&mut self, places: impl IntoIterator<Item = usize>) {
        self.places.extend(places);
        self.places.sort_unstable();
        self.places.dedup();
    }

    /// Returns whether the template or the absence of what goes by `id` is left out.
    pub(super) fn holds(&self, id: u64) -> bool {
        self.templates.contains(&id)
    }

    /// Returns whether nothing is left out.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.templates.is_empty() && !self.critical && !self.volume
    }
}

/// Says, for a person, that a mute held.
pub(super) fn reason(mute: &Mute) -> String {
    let id = mute.id;
    match &mute.pattern {
        Pattern::Template { text, .. } => format!("muted ({id}): `{text}`"),
        Pattern::Critical => format!("muted ({id}): the number of ERROR and FATAL lines"),
        Pattern::Volume => format!("muted ({id}): the number of lines"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TopicPartition;

    #[test]
    fn a_mute_holds_in_its_stream_from_its_first_window_until_it_expires() {
        let at = |millis| EventTime::from_millis(millis).unwrap();
        let mutes = Mutes::new([Mute {
            id: 1,
            stream: "t/0/a".to_owned(),
            pattern: Pattern::Volume,
            active_from: at(30_000),
            expires_at: at(90_000),
        }]);
        let holds = |service: &str, millis| {
            let stream = StreamKey {
                partition: TopicPartition {
                    topic: "t".into(),
                    partition: 0,
                },
                service: Some(service.into()),
            };
            !mutes.at(&stream, at(millis)).is_empty()
        };
        assert!(!holds("a", 0) && holds("a", 30_000) && holds("a", 60_000));
        assert!(!holds("a", 90_000) && !holds("b", 30_000));
    }

    #[test]
    fn a_pattern_is_the_same_after_a_round_through_json() {
        let parts = [
            Pattern::Template {
                template: 0x00ab,
                text: "user <num>".to_owned(),
            },
            Pattern::Critical,
            Pattern::Volume,
        ];
        let json = serde_json::to_string(&parts).unwrap();
        assert_eq!(
            json,
            r#"[{"kind":"template","template":"00000000000000ab","text":"user <num>"},{"kind":"critical"},{"kind":"volume"}]"#
        );
        let back: Vec<Pattern> = serde_json::from_str(&json).unwrap();
        assert_eq!(back, parts);
    }
}

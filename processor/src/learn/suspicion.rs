//! Whether there seems to be an incident in what a first model learns from.
//!
//! Half an hour is too short for forward chaining to tell habits from incidents, so that something
//! simpler looks on: windows with far more `ERROR` and `FATAL` lines than is usual for that time.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use crate::{event::EventTime, window::ClosedWindow};

/// Most windows looked at: a week at 30 s. Later ones of a longer past are passed over.
const WINDOWS_MAX: usize = 20_160;
/// Most critical templates told apart in one window.
const WINDOW_TEMPLATES_MAX: usize = 64;
/// Most critical templates whose text is kept: 5 MB at most. Lines of further ones count all the
/// same.
const TEXTS_MAX: usize = 10_000;
/// What is shown for the text of the others.
const NO_TEXT: &str = "(a text that was not kept)";
/// Deviations above the median from which a window is suspicious, and the fewest critical lines.
const DEVIATIONS: f64 = 6.0;
const LINES_MIN: u32 = 5;
/// Quiet windows within one spell.
const LULL_WINDOWS: i64 = 2;
/// Spells and templates that are told of.
const SPELLS_MAX: usize = 3;
const TEMPLATES_MAX: usize = 3;
/// Longest text of a template that is kept and shown, in characters.
const TEXT_CHARS_MAX: usize = 120;
/// A mean deviation of the middle half from the median to a standard deviation.
const MAD_TO_DEVIATION: f64 = 1.4826;

/// What was seen of critical lines.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    windows: BTreeMap<EventTime, Seen>,
    texts: HashMap<u64, Box<str>>,
    length_ms: i64,
}

#[derive(Debug, Default)]
struct Seen {
    critical: u32,
    templates: HashMap<u64, u32>,
}

/// A stretch of time with far more critical lines than usual.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spell {
    /// First instant, and first after.
    pub(super) from: EventTime,
    pub(super) until: EventTime,
    /// Critical lines in it, and those usual for as long.
    pub(super) critical: u32,
    pub(super) usual: f64,
    /// Templates that came more often than usual, most remarkable first, with their lines in it.
    pub(super) templates: Vec<(String, u32)>,
}

impl fmt::Display for Spell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            until,
            critical,
            usual,
            templates,
        } = self;
        write!(
            out,
            "{from} to {until}: {critical} ERROR and FATAL lines where {usual:.1} are usual"
        )?;
        for (text, lines) in templates {
            write!(out, "; {lines} times `{text}`")?;
        }
        Ok(())
    }
}

impl Suspicion {
    /// Looks at the next window.
    pub(super) fn add(&mut self, window: &ClosedWindow) {
        let start = window.bounds.start;
        let room = self.windows.len() < WINDOWS_MAX || self.windows.contains_key(&start);
        if window.gap || !room {
            return;
        }
        self.length_ms = window.bounds.end.as_millis() - start.as_millis();
        let seen = self.windows.entry(start).or_default();
        seen.critical += window.content.critical();
        for pair in window.content.sorted_pairs() {
            let hash = pair.template.hash;
            let known =
                seen.templates.len() < WINDOW_TEMPLATES_MAX || seen.templates.contains_key(&hash);
            if pair.level.is_critical() && known {
                *seen.templates.entry(hash).or_default() += pair.count;
                keep_text(&mut self.texts, hash, &pair.template.text);
            }
        }
    }

    /// Returns the worst spells, in order of time.
    pub(super) fn spells(&self) -> Vec<Spell> {
        let mut counts: Vec<f64> = self.windows.values().map(|it| it.critical.into()).collect();
        let median = median(&mut counts);
        let mut deviations: Vec<f64> = counts.iter().map(|it| (it - median).abs()).collect();
        let deviation = (MAD_TO_DEVIATION * self::median(&mut deviations))
            .max(median.sqrt())
            .max(1.0);
        let limit = (median + DEVIATIONS * deviation).max(f64::from(LINES_MIN));
        let mut spells: Vec<(EventTime, EventTime)> = Vec::new();
        for (start, seen) in &self.windows {
            if f64::from(seen.critical) < limit {
                continue;
            }
            let lull_ms = (LULL_WINDOWS + 1) * self.length_ms;
            match spells.last_mut() {
                Some((_, last)) if start.as_millis() - last.as_millis() <= lull_ms => {
                    *last = *start;
                }
                _ => spells.push((*start, *start)),
            }
        }
        let mut spells: Vec<Spell> = spells
            .into_iter()
            .map(|(from, last)| self.spell((from, last), median))
            .collect();
        let excess = |spell: &Spell| f64::from(spell.critical) - spell.usual;
        spells.sort_by(|one, other| excess(other).total_cmp(&excess(one)));
        spells.truncate(SPELLS_MAX);
        spells.sort_by_key(|spell| spell.from);
        spells
    }

    fn spell(&self, (from, last): (EventTime, EventTime), median: f64) -> Spell {
        let mut inside: HashMap<u64, u32> = HashMap::new();
        let mut outside: HashMap<u64, u32> = HashMap::new();
        let (mut critical, mut windows) = (0, 0_u32);
        for (start, seen) in &self.windows {
            let within = (from..=last).contains(start);
            if within {
                critical += seen.critical;
                windows += 1;
            }
            let sums = if within { &mut inside } else { &mut outside };
            for (hash, lines) in &seen.templates {
                *sums.entry(*hash).or_default() += lines;
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "at most 20,160")]
        let others = (self.windows.len() as f64 - f64::from(windows)).max(1.0);
        let excess = |hash: &u64, lines: u32| {
            let rate = f64::from(*outside.get(hash).unwrap_or(&0)) / others;
            f64::from(lines) - rate * f64::from(windows)
        };
        let mut templates: Vec<(u64, u32, f64)> = inside
            .iter()
            .map(|(hash, lines)| (*hash, *lines, excess(hash, *lines)))
            .filter(|(_, _, excess)| *excess > 0.0)
            .collect();
        templates.sort_by(|one, other| other.2.total_cmp(&one.2).then(one.0.cmp(&other.0)));
        templates.truncate(TEMPLATES_MAX);
        let text = |hash: &u64| self.texts.get(hash).map_or(NO_TEXT, |text| &**text);
        Spell {
            from,
            until: last.saturating_add(self.length_ms),
            critical,
            usual: median * f64::from(windows),
            templates: templates
                .iter()
                .map(|(hash, lines, _)| (text(hash).to_owned(), *lines))
                .collect(),
        }
    }
}

/// Keeps the beginning of a template's text, if there is room for one more.
fn keep_text(texts: &mut HashMap<u64, Box<str>>, hash: u64, text: &str) {
    if texts.len() < TEXTS_MAX && !texts.contains_key(&hash) {
        let kept: String = text.chars().take(TEXT_CHARS_MAX).collect();
        texts.insert(hash, kept.into());
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::{Masker, TemplateDictionary},
        event::{Level, LogEvent, TopicPartition},
        pipeline::{DICTIONARY_TEMPLATES_MAX, Intake, Step},
        window::{GroupBy, Recovered, WindowConfig},
    };

    /// What is suspected of an hour with so many errors in each of its windows.
    fn spells(errors: impl Fn(i64) -> (i64, &'static str)) -> Vec<Spell> {
        let config = WindowConfig {
            length_ms: 30_000,
            lateness_ms: 0,
            group_by: GroupBy::Partition,
        };
        let partition = TopicPartition {
            topic: "t".into(),
            partition: 0,
        };
        let masker = Masker::new(&Masker::default_rules()).unwrap();
        let mut dictionary = TemplateDictionary::new(masker, DICTIONARY_TEMPLATES_MAX);
        let mut intake = Intake::new(config, partition, Recovered::default());
        let (mut steps, mut suspicion) = (Vec::new(), Suspicion::default());
        for window in 0..120 {
            let (count, message) = errors(window);
            for line in 0..10 + count {
                let (level, message) = match line {
                    0..10 => (Level::Info, "all is well"),
                    _ => (Level::Error, message),
                };
                let event = LogEvent {
                    time: EventTime::from_millis(window * 30_000 + line).unwrap(),
                    level,
                    service: "auth".into(),
                    message: message.into(),
                    label: None,
                };
                intake.event(&mut dictionary, &event, window, &mut steps);
            }
        }
        intake.end(&mut steps);
        for step in steps {
            if let Step::Closed(window) = step {
                suspicion.add(&window);
            }
        }
        suspicion.spells()
    }

    #[test]
    fn usual_errors_are_no_incident() {
        assert_eq!(spells(|window| (window % 4, "slow answer")), []);
        assert_eq!(spells(|_| (0, "")), []);
        // A system in trouble all the time: nothing stands out.
        assert_eq!(spells(|window| (200 + window % 20, "slow answer")), []);
    }

    #[test]
    fn so_many_texts_are_kept_and_no_more() {
        let mut texts = HashMap::new();
        for hash in (0..).take(TEXTS_MAX + 10) {
            keep_text(&mut texts, hash, &"long ".repeat(100));
        }
        assert_eq!(texts.len(), TEXTS_MAX);
        assert!(texts.contains_key(&0));
        assert!(
            texts
                .values()
                .all(|it| it.chars().count() == TEXT_CHARS_MAX)
        );
    }

    #[test]
    fn a_burst_is_told_with_its_time_and_templates() {
        let found = spells(|window| match window {
            60 | 61 | 63 => (40, "cannot reach database"),
            _ => (window % 3, "slow answer"),
        });
        let [spell] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(spell.from.as_millis(), 60 * 30_000);
        assert_eq!(spell.until.as_millis(), 64 * 30_000);
        assert_eq!(
            spell.templates[0],
            ("cannot reach database".to_owned(), 120)
        );
        let told = spell.to_string();
        assert!(told.contains("120 times `cannot reach database`"), "{told}");
    }
}

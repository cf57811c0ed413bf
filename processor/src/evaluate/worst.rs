//! The windows to look at: the worst misses, the worst false alarms, and, where nothing says what is
//! true, the strongest alarms. As they are met, so that only these are kept whole.

use serde::Serialize;

use super::Truth;
use crate::{
    event::EventTime,
    model::{ColumnFinding, ScoredWindow},
    window::{TemplateCount, WindowContent},
};

/// Most windows shown of each list.
pub const WORST_MAX: usize = 10;
/// Most templates shown of a window.
const TEMPLATES_MAX: usize = 6;

/// A window, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// Its stream.
    pub stream: String,
    /// First instant, RFC 3339.
    pub start: String,
    /// First instant after, RFC 3339.
    pub end: String,
    /// -log10 of the combined p-value.
    pub severity: f64,
    /// Lines.
    pub lines: u32,
    /// Kinds of anomaly that its lines name.
    pub anomaly_types: Vec<String>,
    /// Why it scored as it did, strongest first.
    pub reasons: Vec<String>,
    /// Columns furthest from their usual range (alarms only).
    pub columns: Vec<ColumnFinding>,
    /// Its most critical and rarest templates.
    pub templates: Vec<CaseTemplate>,
    /// Lines as they came, redacted: the first that is labelled anomalous, the first critical ones.
    pub samples: Vec<String>,
    #[serde(skip)]
    pub(super) from: EventTime,
}

/// Lines of one template in a window shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseTemplate {
    /// The service.
    pub service: String,
    /// The highest level a line of it had.
    pub level: &'static str,
    /// Lines.
    pub lines: u32,
    /// The masked text.
    pub text: String,
}

impl Case {
    /// Returns a window as it is shown.
    #[must_use]
    pub fn of(scored: &ScoredWindow) -> Self {
        let window = &scored.window;
        let content = &*window.content;
        let labelled = content.first_anomalous.iter().map(|line| &line.message);
        let mut samples: Vec<String> = labelled.map(ToString::to_string).collect();
        for sample in &content.samples {
            if !samples.iter().any(|known| **known == **sample) {
                samples.push(sample.to_string());
            }
        }
        Self {
            stream: window.stream.to_string(),
            start: window.bounds.start.to_string(),
            end: window.bounds.end.to_string(),
            severity: scored.verdict.severity,
            lines: content.lines(),
            anomaly_types: Vec::new(),
            reasons: scored.explanation.reasons.clone(),
            columns: scored.explanation.columns.clone(),
            templates: templates(content),
            samples,
            from: window.bounds.start,
        }
    }
}

fn templates(content: &WindowContent) -> Vec<CaseTemplate> {
    let mut pairs = content.sorted_pairs();
    let key = |pair: &&TemplateCount| (std::cmp::Reverse(pair.level), pair.count);
    pairs.sort_by_key(key);
    pairs.truncate(TEMPLATES_MAX);
    let shown = |pair: &TemplateCount| CaseTemplate {
        service: content.service_of(pair).to_owned(),
        level: pair.level.as_str(),
        lines: pair.count,
        text: pair.template.text.to_string(),
    };
    pairs.into_iter().map(shown).collect()
}

/// The lists, each with the worst first.
#[derive(Clone, Debug, Default)]
pub(super) struct Worst {
    pub(super) misses: Vec<Case>,
    pub(super) false_alarms: Vec<Case>,
    pub(super) unjudged: Vec<Case>,
}

impl Worst {
    /// Takes a window, and keeps it if it is among the worst of its kind.
    pub(super) fn add(&mut self, truth: Truth, scored: &ScoredWindow) {
        let severity = scored.verdict.severity;
        // The more normal a miss looked, the worse; the stranger an alarm, the worse.
        let (list, sign) = match (truth, scored.verdict.is_anomaly) {
            (Truth::Anomalous, false) => (&mut self.misses, 1.0),
            (Truth::Normal | Truth::Empty, true) => (&mut self.false_alarms, -1.0),
            (Truth::Unlabelled, true) => (&mut self.unjudged, -1.0),
            _ => return,
        };
        let rank = |severity: f64| sign * severity;
        // Of equals the first stays before.
        let before = |case: &Case| rank(case.severity).total_cmp(&rank(severity)).is_le();
        let place = list.partition_point(before);
        if place < WORST_MAX {
            list.insert(place, Case::of(scored));
            list.truncate(WORST_MAX);
        }
    }
}

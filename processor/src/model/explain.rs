//! Why a window scored as it did, for a person: sentences, columns, templates, services.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Baseline,
    adoption::Adopted,
    bundle::Content,
    calibration::{Evidence, Kind},
    density::SPACE,
    drift::{Part, Surplus},
    mute::Pattern,
    signals::Signals,
};
use crate::{
    event::{EventTime, Level},
    features::{COLUMNS, Column, FeatureRow, Observed},
    window::{TemplateCount, WindowContent},
};

/// Evidence, in nats, from which a signal is named as a reason: chance brings it once in 20.
const REASON_NATS: f64 = 3.0;
/// Most columns, templates and services named.
const COLUMNS_MAX: usize = 5;
const TEMPLATES_MAX: usize = 5;
const SERVICES_MAX: usize = 5;
/// A template comes up rarely if it had fewer occasions in training.
const RARE_OCCASIONS: f64 = 20.0;
/// A template surges if there are this many times the lines that its service's lines make expect,
/// and at least [`SURGE_LINES`].
const SURGE_FACTOR: f64 = 4.0;
const SURGE_LINES: u32 = 3;

/// Why a window scored as it did. Serialised into the result message, the table and, in short,
/// the alarm line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The strongest signals, strongest first, each one sentence for a person.
    pub reasons: Vec<String>,
    /// The columns furthest from their usual range, furthest first (anomalies only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnFinding>,
    /// The templates that are new, rare or surging, most surprising first (anomalies only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateFinding>,
    /// The services those templates come from, most lines first (anomalies only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceFinding>,
    /// The fewest parts without which it would be no anomaly (anomalies only): what is muted if
    /// somebody calls the alarm false.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pattern: Vec<Pattern>,
}

/// A column outside its usual range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnFinding {
    /// The column's name.
    pub column: String,
    /// Its value in this window.
    pub value: f64,
    /// Value that 1 % of training windows lie below.
    pub usual_low: f64,
    /// Value that 1 % of training windows lie above.
    pub usual_high: f64,
}

/// What is remarkable about a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateKind {
    /// Never seen in training, nor for long enough by this stream.
    New,
    /// Seen on few occasions in training.
    Rare,
    /// Far more lines than usual, in the window or for minutes or an hour.
    Surging,
    /// Familiar, but not from this service.
    Elsewhere,
}

/// A template that is new, rare or surging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateFinding {
    /// What is remarkable about it.
    pub kind: TemplateKind,
    /// The masked text.
    pub text: String,
    /// The service it comes from.
    pub service: Arc<str>,
    /// The highest level a line of it had.
    pub level: Level,
    /// Lines in this window.
    pub lines: u32,
    /// Lines that this many lines of its service make expect.
    pub expected_lines: f64,
    /// Lines in training; of a template adopted since, the stream's own.
    pub training_lines: u64,
}

/// Lines of one service in the templates named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceFinding {
    /// The service.
    pub service: Arc<str>,
    /// Its lines in the templates named.
    pub lines: u32,
}

/// What is explained.
pub(super) struct Findings<'a> {
    pub(super) content: &'a Content,
    pub(super) window: &'a WindowContent,
    pub(super) observed: &'a Observed,
    /// In the order of `observed.pairs`.
    pub(super) pairs: &'a [&'a TemplateCount],
    pub(super) features: &'a FeatureRow,
    pub(super) signals: &'a Signals,
    pub(super) evidence: &'a Evidence,
    /// The baseline against which it was scored.
    pub(super) baseline: &'a Baseline,
    /// Windows without lines in a row, if that is an alarm.
    pub(super) silent: Option<u32>,
    /// Columns, templates and services are wanted.
    pub(super) detailed: bool,
}

/// Returns the explanation.
pub(super) fn explain(findings: &Findings<'_>) -> Explanation {
    let mut explanation = Explanation {
        reasons: reasons(findings),
        ..Explanation::default()
    };
    if findings.detailed {
        explanation.columns = columns(findings);
        explanation.templates = templates(findings);
        explanation.services = services(&explanation.templates);
    }
    explanation
}

/// Says that a template is known from now on.
pub(super) fn adoption(adopted: &Adopted, pairs: &[&TemplateCount]) -> String {
    let text = &pairs[adopted.place].template.text;
    let windows = adopted.windows;
    match EventTime::from_millis(adopted.first_ms) {
        Some(first) => format!("adopted template `{text}`: in {windows} windows since {first}"),
        None => format!("adopted template `{text}`: in {windows} windows"),
    }
}

fn reasons(findings: &Findings<'_>) -> Vec<String> {
    if let Some(windows) = findings.silent {
        let usual = lines_of(findings.baseline.usual_lines());
        return vec![format!(
            "silent for {windows} windows, this stream's recent windows have about {usual} lines"
        )];
    }
    let mut strongest: Vec<_> = Kind::ALL.into_iter().zip(findings.evidence).collect();
    strongest.sort_by(|a, b| b.1.total_cmp(a.1));
    strongest
        .into_iter()
        .filter(|(_, evidence)| **evidence >= REASON_NATS)
        .map(|(kind, _)| reason(kind, findings))
        .collect()
}

fn reason(kind: Kind, findings: &Findings<'_>) -> String {
    let lines = findings.observed.lines();
    match kind {
        Kind::Novelty => novelty(findings),
        Kind::Repetition => match findings.signals.repeated.map(|place| pair(findings, place)) {
            Some((text, lines, expected)) => {
                format!("`{text}` came {lines} times, about {expected} would be usual")
            }
            None => "a template came far more often than usual".to_owned(),
        },
        Kind::Critical => {
            let usual = lines_of(f64::from(lines) * findings.content.profile.critical_share);
            format!(
                "{} of {lines} lines are ERROR or FATAL, about {usual} would be usual",
                findings.observed.critical()
            )
        }
        Kind::Volume if findings.signals.odd_hour.is_some() => odd_hour(findings),
        Kind::Volume => format!(
            "{lines} lines, this stream's recent windows have about {}",
            lines_of(findings.baseline.usual_lines())
        ),
        Kind::Drift => drift(findings),
        Kind::Absence => absence(findings),
    }
}

fn odd_hour(findings: &Findings<'_>) -> String {
    let (recent, usual) = findings
        .signals
        .odd_hour
        .map_or((0.0, 0.0), |odd| (odd.recent, odd.usual));
    format!(
        "about {} lines a window of late, about {} would be usual at this hour",
        lines_of(recent),
        lines_of(usual)
    )
}

fn drift(findings: &Findings<'_>) -> String {
    let surplus = findings.signals.surplus.as_ref();
    // One of them is in the window.
    let place = surplus.and_then(|surplus| surplus.parts().iter().find_map(|part| part.place));
    let (Some(surplus), Some(place)) = (surplus, place) else {
        return "a template has come more often than usual for a while".to_owned();
    };
    let pair = &findings.observed.pairs[place];
    let service = &findings.window.services[pair.service].name;
    let minutes = surplus.minutes;
    let said = surplus.parts().iter().zip(0..).map(|(part, number)| {
        let text = text_of(findings, part);
        let (lines, usual) = (lines_of(part.lines), lines_of(part.expected));
        match number {
            0 => format!(
                "`{text}` from {service} came {lines} times within about {minutes} min, about \
                 {usual} would be usual"
            ),
            1 => format!("; likewise `{text}` {lines} times ({usual})"),
            _ => format!(", `{text}` {lines} times ({usual})"),
        }
    });
    said.collect()
}

fn text_of<'a>(findings: &Findings<'a>, part: &Part) -> &'a str {
    match part.place {
        Some(place) => pair(findings, place).0,
        None => {
            let profile = &findings.content.profile;
            profile.text_of(part.template).unwrap_or_default()
        }
    }
}

fn absence(findings: &Findings<'_>) -> String {
    let Some(missing) = findings.signals.missing else {
        return "something regular stays away".to_owned();
    };
    let profile = &findings.content.profile;
    let service = &profile.services[missing.regular.service as usize].name;
    let (windows, presence) = (missing.windows, 100.0 * missing.presence);
    match missing.regular.template {
        Some(template) => format!(
            "`{}` from {service} stays away for {windows} windows, it came in {presence:.1} % of them",
            profile.templates[template as usize].text
        ),
        None => format!(
            "{service} fell silent: no line for {windows} windows, it came in {presence:.1} % of them"
        ),
    }
}

fn novelty(findings: &Findings<'_>) -> String {
    let Some(place) = findings.signals.surprising else {
        return "a line that hardly ever comes".to_owned();
    };
    let finding = finding(findings, place);
    let TemplateFinding { text, service, .. } = &finding;
    match finding.training_lines {
        n if findings.observed.pairs[place].fact.adopted => {
            format!("seldom since it was adopted: `{text}` from {service} ({n} lines)")
        }
        0 => format!("never seen in training: `{text}` from {service}"),
        n if finding.kind == TemplateKind::Elsewhere => {
            format!("unusual from {service}: `{text}` ({n} lines in training)")
        }
        n => format!("rare in training: `{text}` from {service} ({n} lines, few occasions)"),
    }
}

fn pair<'a>(findings: &Findings<'a>, place: usize) -> (&'a str, u32, String) {
    let pair = &findings.observed.pairs[place];
    let text = &*findings.pairs[place].template.text;
    (text, pair.count, lines_of(expected(findings, place)))
}

fn expected(findings: &Findings<'_>, place: usize) -> f64 {
    let pair = &findings.observed.pairs[place];
    f64::from(findings.observed.services[pair.service].lines) * pair.fact.share
}

/// A number of lines for a person.
fn lines_of(lines: f64) -> String {
    if lines >= 10.0 {
        format!("{lines:.0}")
    } else if lines >= 0.095 {
        format!("{lines:.1}")
    } else {
        format!("{lines:.1e}")
    }
}

fn finding(findings: &Findings<'_>, place: usize) -> TemplateFinding {
    let pair = &findings.observed.pairs[place];
    let counted = findings.pairs[place];
    let known = findings.content.profile.template(pair.template);
    let occasions = known.map_or(0.0, |n| findings.content.profile.templates[n].occasions);
    let expected = expected(findings, place);
    let kind = if pair.fact.training_lines == 0 {
        TemplateKind::New
    } else if known.is_some() && occasions < RARE_OCCASIONS {
        TemplateKind::Rare
    } else if pair.count >= SURGE_LINES && f64::from(pair.count) >= SURGE_FACTOR * expected {
        TemplateKind::Surging
    } else {
        TemplateKind::Elsewhere
    };
    TemplateFinding {
        kind,
        text: counted.template.text.to_string(),
        service: Arc::clone(&findings.window.services[pair.service].name),
        level: counted.level,
        lines: pair.count,
        expected_lines: expected,
        training_lines: pair.fact.training_lines,
    }
}

fn columns(findings: &Findings<'_>) -> Vec<ColumnFinding> {
    let novelty = Column::UnseenTemplates as usize..COLUMNS.len();
    let mut far: Vec<(f64, ColumnFinding)> = SPACE
        .into_iter()
        .chain(novelty)
        .filter_map(|column| {
            let usual = findings.content.usual[column];
            let value = findings.features.values[column];
            let range = (usual.high - usual.low)
                .max(1e-3 * usual.median.abs())
                .max(1e-6);
            let beyond = (value - usual.high).max(usual.low - value) / range;
            (beyond > 0.0).then(|| {
                let finding = ColumnFinding {
                    column: COLUMNS[column].to_owned(),
                    value,
                    usual_low: usual.low,
                    usual_high: usual.high,
                };
                (beyond, finding)
            })
        })
        .collect();
    // The sort is stable, so ties keep the order of the columns.
    far.sort_by(|a, b| b.0.total_cmp(&a.0));
    far.truncate(COLUMNS_MAX);
    far.into_iter().map(|(_, finding)| finding).collect()
}

fn templates(findings: &Findings<'_>) -> Vec<TemplateFinding> {
    let told = findings.evidence[Kind::Drift as usize] >= REASON_NATS;
    let surplus = findings.signals.surplus.as_ref().filter(|_| told);
    let exceeding = surplus.map(Surplus::parts).unwrap_or_default();
    let mut named: Vec<(f64, TemplateFinding)> = (0..findings.observed.pairs.len())
        .map(|place| {
            let surprisal = findings.observed.pairs[place].fact.surprisal;
            let mut finding = finding(findings, place);
            if finding.kind == TemplateKind::Elsewhere
                && exceeding.iter().any(|part| part.place == Some(place))
            {
                finding.kind = TemplateKind::Surging;
            }
            (surprisal, finding)
        })
        .filter(|(_, finding)| finding.kind != TemplateKind::Elsewhere)
        .collect();
    named.sort_by(|a, b| {
        (a.1.kind, b.0)
            .partial_cmp(&(b.1.kind, a.0))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    named.truncate(TEMPLATES_MAX);
    named.into_iter().map(|(_, finding)| finding).collect()
}

fn services(templates: &[TemplateFinding]) -> Vec<ServiceFinding> {
    let mut services: Vec<ServiceFinding> = Vec::new();
    for template in templates {
        match services.iter_mut().find(|s| s.service == template.service) {
            Some(service) => service.lines += template.lines,
            None => services.push(ServiceFinding {
                service: Arc::clone(&template.service),
                lines: template.lines,
            }),
        }
    }
    services.sort_by_key(|service| std::cmp::Reverse(service.lines));
    services.truncate(SERVICES_MAX);
    services
}

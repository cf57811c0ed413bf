//! Scored windows against the ground truth of their lines: what `replay` prints.
//!
//! ```text
//! ScoredWindow ──► Evaluation ──► Report ──► table for a person, one JSON object, or a page
//! ```
//!
//! A window is anomalous if any of its lines is. In labelled input, windows without lines count as
//! normal, and windows whose lines carry no label are in no ratio. Ratios of nothing are absent,
//! never NaN. Labels decide nothing but what is counted here: the one figure that chooses a
//! threshold by them is marked as such. No clock, no I/O.

mod budget;
mod comparison;
mod figures;
mod hours;
mod html;
mod incidents;
mod ranking;
mod report;
mod sweep;
mod text;
mod timeline;
mod worst;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use budget::Budget;
pub use comparison::{
    Agreement, Comparison, DISAGREEMENTS_MAX, Disagreement, Opinion, OverlayRecall,
};
pub use figures::{Figures, write_side_by_side};
pub use hours::AlarmHours;
pub use html::{Heading, Page};
pub use incidents::Incidents;
pub use ranking::BestThreshold;
pub use report::{Report, TypeRecall};
pub use sweep::SweepRow;
pub use worst::{Case, CaseTemplate, WORST_MAX};

use self::{incidents::Incident, ranking::Ranking, sweep::Scale, timeline::Timeline, worst::Worst};
use crate::{
    event::{EventTime, StreamKey},
    model::ScoredWindow,
    window::WindowBounds,
};

/// Most kinds of anomaly told apart; a file with more has put something else into the column.
const ANOMALY_TYPES_MAX: usize = 64;
/// Where kinds beyond [`ANOMALY_TYPES_MAX`] are counted.
const OTHER_TYPES: &str = "(other)";
const DAY_MS: f64 = 86_400_000.0;

/// What is looked at of a window.
#[derive(Clone, Copy, Debug)]
pub struct EvaluatedWindow<'a> {
    /// The stream it belongs to.
    pub stream: &'a StreamKey,
    /// Its time; a gap row counts as one window.
    pub bounds: WindowBounds,
    /// Its lines.
    pub lines: u64,
    /// Lines that carried a label.
    pub labelled: u64,
    /// Lines labelled anomalous.
    pub anomalous: u64,
    /// The decision.
    pub alarmed: bool,
    /// It would have alarmed, had the model not been young and its alarms of the day spent.
    pub capped: bool,
    /// The larger, the stranger; windows are ranked by it. NaN ranks lowest.
    pub severity: f64,
    /// When an alarm told of it before it was full, if one did.
    pub early: Option<EventTime>,
    /// When the first line labelled anomalous was written; the window's start if it is not known.
    pub first_anomalous: Option<EventTime>,
    /// The window itself, to be shown if it is among the worst.
    pub scored: Option<&'a ScoredWindow>,
}

impl<'a> From<&'a ScoredWindow> for EvaluatedWindow<'a> {
    fn from(scored: &'a ScoredWindow) -> Self {
        let content = &scored.window.content;
        Self {
            stream: &scored.window.stream,
            bounds: scored.window.bounds,
            lines: content.levels.iter().map(|lines| u64::from(*lines)).sum(),
            labelled: u64::from(content.labelled),
            anomalous: u64::from(content.anomalous),
            alarmed: scored.verdict.is_anomaly,
            capped: scored.verdict.capped,
            severity: scored.verdict.severity,
            early: scored.early.as_ref().map(|alarm| alarm.at),
            first_anomalous: content.first_anomalous.as_ref().map(|line| line.time),
            scored: Some(scored),
        }
    }
}

/// What the run as a whole adds to the windows.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunTotals {
    /// Log lines decoded, those included that came too late for their window.
    pub events: u64,
    /// Rows or records that could not be decoded.
    pub rejected: u64,
    /// Log lines that came too late for their window.
    pub late: u64,
    /// Wall time the run took, in seconds.
    pub seconds: f64,
    /// False alarms a day that the threshold was set for; `None` if it was not set by a budget.
    pub alarms_per_day: Option<f64>,
    /// Combined p-value below which windows alarmed; `None` if that is not known.
    pub threshold: Option<f64>,
    /// Windows a day of all streams, over which a budget is spread; `None` if that is not known.
    pub windows_per_day: Option<f64>,
}

/// A window as it is kept: 48 bytes, so that a year of one stream's windows takes 50 MB.
#[derive(Clone, Copy, Debug)]
struct Kept {
    start: EventTime,
    end: EventTime,
    /// When its alarm told of it, if it alarmed: early, or at its end.
    told: EventTime,
    /// When the first anomalous line was written.
    first_line: EventTime,
    severity: f64,
    stream: u32,
    alarmed: bool,
    capped: bool,
    truth: Truth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Anomalous,
    Normal,
    /// No lines.
    Empty,
    /// Lines, but no label on any.
    Unlabelled,
}

/// Collects windows, in any order.
#[derive(Clone, Debug)]
pub struct Evaluation {
    window_ms: i64,
    windows: Vec<Kept>,
    streams: HashMap<StreamKey, u32>,
    types: BTreeMap<EventTime, BTreeSet<usize>>,
    type_names: Vec<String>,
    worst: Worst,
}

impl Evaluation {
    /// Returns an empty evaluation of windows of `window_ms` milliseconds.
    #[must_use]
    pub fn new(window_ms: i64) -> Self {
        Self {
            window_ms: window_ms.max(1),
            windows: Vec::new(),
            streams: HashMap::new(),
            types: BTreeMap::new(),
            type_names: Vec::new(),
            worst: Worst::default(),
        }
    }

    /// Takes a final window.
    pub fn add(&mut self, window: EvaluatedWindow<'_>) {
        let stream = if let Some(stream) = self.streams.get(window.stream) {
            *stream
        } else {
            let stream = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
            self.streams.insert(window.stream.clone(), stream);
            stream
        };
        let truth = if window.anomalous > 0 {
            Truth::Anomalous
        } else if window.labelled > 0 {
            Truth::Normal
        } else if window.lines == 0 {
            Truth::Empty
        } else {
            Truth::Unlabelled
        };
        if let Some(scored) = window.scored {
            self.worst.add(truth, scored);
        }
        self.windows.push(Kept {
            start: window.bounds.start,
            end: window.bounds.end,
            told: window.early.map_or(window.bounds.end, |early| {
                early.clamp(window.bounds.start, window.bounds.end)
            }),
            first_line: window.first_anomalous.unwrap_or(window.bounds.start),
            severity: window.severity,
            stream,
            alarmed: window.alarmed,
            capped: window.capped,
            truth,
        });
    }

    /// Notes that an anomalous line at `time` was of kind `name`. It counts for every anomalous
    /// window of that time, whatever its stream.
    pub fn add_anomaly_type(&mut self, time: EventTime, name: &str) {
        let known = self.type_names.iter().position(|known| known == name);
        let id = known.unwrap_or_else(|| {
            let full = self.type_names.len() > ANOMALY_TYPES_MAX;
            if full {
                return ANOMALY_TYPES_MAX;
            }
            let last = self.type_names.len() == ANOMALY_TYPES_MAX;
            let name = if last { OTHER_TYPES } else { name };
            self.type_names.push(name.to_owned());
            self.type_names.len() - 1
        });
        let window = time.window_start(self.window_ms);
        self.types.entry(window).or_default().insert(id);
    }

    /// Returns the figures.
    #[must_use]
    pub fn report(&self, totals: &RunTotals) -> Report {
        let count = |matches: &dyn Fn(&Kept) -> bool| {
            self.windows.iter().filter(|window| matches(window)).count() as u64
        };
        let unlabelled = count(&|window| window.truth == Truth::Unlabelled);
        let empty = count(&|window| window.truth == Truth::Empty);
        let windows = self.windows.len() as u64;
        let labelled = windows - unlabelled - empty;
        let alarms = count(&|window| window.alarmed);
        let confusion = (labelled > 0).then(|| self.confusion());
        let ranking = (labelled > 0).then(|| self.ranking());
        let span = self.span();
        let days = span.map_or(0.0, |(start, end)| {
            (end.as_millis() - start.as_millis()) as f64 / DAY_MS
        });
        let judged_days = self.judged_days(days, labelled > 0);
        let false_alarms = confusion.map_or(alarms, |confusion| confusion.fp);
        let episodes = self.episodes();
        let incidents = incidents::incidents(&self.windows);
        Report {
            events: totals.events,
            windows,
            anomalous_windows: confusion.map(|confusion| confusion.tp + confusion.fn_),
            alarms,
            tp: confusion.map(|confusion| confusion.tp),
            fp: confusion.map(|confusion| confusion.fp),
            fn_: confusion.map(|confusion| confusion.fn_),
            tn: confusion.map(|confusion| confusion.tn),
            precision: confusion.and_then(Confusion::precision),
            recall: confusion.and_then(Confusion::recall),
            f1: confusion.and_then(Confusion::f1),
            roc_auc: ranking.as_ref().and_then(Ranking::roc_auc),
            seconds: totals.seconds,
            pr_auc: ranking.as_ref().and_then(Ranking::average_precision),
            rejected: totals.rejected,
            late: totals.late,
            labelled_windows: labelled,
            empty_windows: empty,
            unlabelled_windows: unlabelled,
            capped_windows: count(&|window| window.capped),
            streams: self.streams.len() as u64,
            start: span.map(|(start, _)| start.to_string()),
            end: span.map(|(_, end)| end.to_string()),
            days,
            judged_days,
            alarms_per_day: ratio(alarms as f64, days),
            episodes,
            budget: totals
                .alarms_per_day
                .map(|budget| Budget::new(budget, judged_days, false_alarms)),
            anomaly_types: self.type_recalls(&incidents),
            best_f1_using_labels: ranking.as_ref().and_then(Ranking::best_f1),
            threshold: totals.threshold,
            episodes_per_day: ratio(episodes as f64, days),
            incidents: (labelled > 0).then(|| incidents::summary(incidents.iter())),
            alarm_hours: AlarmHours::of(&self.windows, labelled > 0),
            sweep: totals
                .windows_per_day
                .map_or_else(Vec::new, |windows_per_day| {
                    let scale = Scale {
                        windows_per_day,
                        days: judged_days,
                        judged: labelled > 0,
                    };
                    sweep::sweep(&self.windows, scale)
                }),
            worst_misses: self.cases(&self.worst.misses),
            worst_false_alarms: self.cases(&self.worst.false_alarms),
            strongest_unjudged: self.cases(&self.worst.unjudged),
        }
    }

    /// Returns the figures as a page that needs nothing else to be looked at.
    #[must_use]
    pub fn page<'a>(&self, report: &'a Report, heading: &'a Heading) -> Page<'a> {
        let span = self.span();
        Page {
            report,
            heading,
            timeline: span.map(|span| Timeline::of(&self.windows, span, self.window_ms)),
            curve: self.ranking().curve(),
        }
    }

    fn cases(&self, cases: &[Case]) -> Vec<Case> {
        let mut cases = cases.to_vec();
        for case in &mut cases {
            let types = self.types.get(&case.from).into_iter().flatten();
            case.anomaly_types = types.map(|id| self.type_names[*id].clone()).collect();
        }
        cases
    }

    fn confusion(&self) -> Confusion {
        let mut confusion = Confusion::default();
        for window in &self.windows {
            confusion.add(window.truth, window.alarmed);
        }
        confusion
    }

    fn ranking(&self) -> Ranking {
        self.windows
            .iter()
            .filter(|window| window.truth != Truth::Unlabelled)
            .map(|window| (window.severity, window.truth == Truth::Anomalous))
            .collect()
    }

    fn span(&self) -> Option<(EventTime, EventTime)> {
        let start = self.windows.iter().map(|window| window.start).min()?;
        let end = self.windows.iter().map(|window| window.end).max()?;
        Some((start, end))
    }

    /// Returns over how many of `days` false alarms are counted: where there are labels, a window
    /// whose lines carry none takes its share of the streams' time away.
    fn judged_days(&self, days: f64, labelled: bool) -> f64 {
        let time = |window: &Kept| window.end.as_millis() - window.start.as_millis();
        let all: i64 = self.windows.iter().map(time).sum();
        let unlabelled = self.windows.iter();
        let unlabelled = unlabelled.filter(|window| window.truth == Truth::Unlabelled);
        match unlabelled.map(time).sum::<i64>() {
            unlabelled if labelled && unlabelled > 0 => {
                days * (all - unlabelled) as f64 / all as f64
            }
            _ => days,
        }
    }

    /// Counts the runs of alarmed windows of a stream that follow each other without a gap.
    fn episodes(&self) -> u64 {
        let mut alarmed: Vec<(u32, EventTime, EventTime)> = self
            .windows
            .iter()
            .filter(|window| window.alarmed)
            .map(|window| (window.stream, window.start, window.end))
            .collect();
        alarmed.sort_unstable();
        let continued = alarmed
            .windows(2)
            .filter(|pair| pair[0].0 == pair[1].0 && pair[1].1 <= pair[0].2)
            .count();
        (alarmed.len() - continued) as u64
    }

    fn type_recalls(&self, incidents: &[Incident]) -> Vec<TypeRecall> {
        let mut counts = vec![(0, 0); self.type_names.len()];
        for window in &self.windows {
            let types = match window.truth {
                Truth::Anomalous => self.types.get(&window.start),
                _ => None,
            };
            for id in types.into_iter().flatten() {
                counts[*id].0 += 1;
                counts[*id].1 += u64::from(window.alarmed);
            }
        }
        let types: Vec<_> = incidents.iter().map(|it| it.types(&self.types)).collect();
        let mut recalls: Vec<TypeRecall> = self
            .type_names
            .iter()
            .zip(counts)
            .enumerate()
            .map(|(id, (name, (windows, alarmed)))| {
                let of_type = incidents.iter().zip(&types);
                let of_type = of_type.filter(|(_, types)| types.contains(&id));
                TypeRecall {
                    name: name.clone(),
                    windows,
                    alarmed,
                    recall: ratio(alarmed as f64, windows as f64),
                    incidents: incidents::summary(of_type.map(|(incident, _)| incident)),
                }
            })
            .collect();
        recalls.sort_by(|a, b| a.name.cmp(&b.name));
        recalls
    }
}

/// Windows by truth and decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Confusion {
    tp: u64,
    fp: u64,
    fn_: u64,
    tn: u64,
}

impl Confusion {
    fn precision(self) -> Option<f64> {
        ratio(self.tp as f64, (self.tp + self.fp) as f64)
    }

    fn recall(self) -> Option<f64> {
        ratio(self.tp as f64, (self.tp + self.fn_) as f64)
    }

    fn f1(self) -> Option<f64> {
        ratio(
            2.0 * self.tp as f64,
            (2 * self.tp + self.fp + self.fn_) as f64,
        )
    }
}

/// Returns `part / whole`, or `None` if there is no whole.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests;

//! The figures as one page: no script, nothing loaded, so that it can be mailed, kept and opened
//! anywhere.
//!
//! Log lines are text of whoever wrote them. Every value is escaped by the template, and the page's
//! own policy forbids scripts and connections besides.

mod cases;
mod charts;

use std::io::{self, Write};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::{
    cases::cases,
    charts::{curve, hours, timeline},
};
use super::{
    Report,
    text::{decimal, grouped},
    timeline::Timeline,
};

const STYLE: &str = include_str!("html/report.css");
/// Nothing but the style in the page itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// What the page says of the run besides its figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heading {
    /// What was read: files or a topic.
    pub input: String,
    /// The model: its directory and checksum.
    pub model: String,
    /// The detector.
    pub detector: String,
}

/// A page, ready to be written.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    pub(super) report: &'a Report,
    pub(super) heading: &'a Heading,
    pub(super) timeline: Option<Timeline>,
    pub(super) curve: Vec<(f64, f64)>,
}

impl Page<'_> {
    /// Writes the page.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.render().into_string().as_bytes())
    }

    fn render(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "LogGuard replay: " (self.heading.input) }
                    style { (PreEscaped(STYLE)) }
                }
                body { main {
                    (self.header())
                    (self.tiles())
                    (self.time())
                    (self.pictures())
                    (self.types())
                    (self.sweep())
                    (self.lists())
                    (self.footer())
                } }
            }
        }
    }

    fn is_judged(&self) -> bool {
        self.report.labelled_windows > 0
    }

    fn header(&self) -> Markup {
        let report = self.report;
        html! {
            h1 { "Replay of " (self.heading.input) }
            p.meta {
                @if let (Some(start), Some(end)) = (&report.start, &report.end) {
                    (start) " to " (end) " · "
                }
                (grouped(report.events)) " lines in " (grouped(report.windows)) " windows of "
                (grouped(report.streams)) (if report.streams == 1 { " stream" } else { " streams" })
                br;
                "Model " span.mono { (self.heading.model) } " · " (self.heading.detector)
            }
        }
    }

    fn tiles(&self) -> Markup {
        let report = self.report;
        html! {
            div.tiles {
                @if self.is_judged() {
                    (tile("", &decimal(report.f1, 3), "F1"))
                    (tile("", &decimal(report.precision, 3), "of the alarms were right"))
                    (tile("", &decimal(report.recall, 3), "of the anomalous windows alarmed"))
                    (tile("", &decimal(report.roc_auc, 3), "ROC AUC"))
                    (tile("", &decimal(report.pr_auc, 3), "PR AUC"))
                }
                @if let Some(incidents) = &report.incidents {
                    @let found = format!("{} / {}", incidents.found, incidents.count);
                    (tile("", &found, "incidents found"))
                    @if let (Some(median), Some(p95)) = (incidents.median_s, incidents.p95_s) {
                        @let remark = format!("to the alarm (median; 95 of 100 within {p95:.0} s)");
                        (tile("", &format!("{median:.0} s"), &remark))
                    }
                }
                @let episodes = format!("alarms in {} episodes", grouped(report.episodes));
                (tile("", &grouped(report.alarms), &episodes))
                (self.budget())
            }
        }
    }

    fn budget(&self) -> Markup {
        let Some(budget) = self.report.budget else {
            return html! {};
        };
        let range = budget
            .usual_range
            .map_or_else(String::new, |(least, most)| {
                format!(", {least} to {most} in 95 of 100 cases")
            });
        let of = if self.is_judged() {
            "false alarms"
        } else {
            "alarms, if all were false"
        };
        let remark = format!(
            "{of}; {:.2} expected at {} a day{range}",
            budget.expected, budget.alarms_per_day
        );
        let class = if budget.kept { "good" } else { "bad" };
        tile(class, &grouped(budget.actual), &remark)
    }

    fn time(&self) -> Markup {
        let Some(line) = &self.timeline else {
            return html! {};
        };
        let threshold = self.report.threshold_severity();
        html! {
            section.card {
                h2 { "Severity over time" }
                p.note {
                    "The strangest window of each stretch (-log10 of its p-value, on a root scale). Dashed: the "
                    "threshold" @if let Some(severity) = threshold { (format!(", {severity:.2}")) } "."
                }
                (timeline(line, threshold))
                div.legend {
                    @if self.is_judged() {
                        span { svg viewBox="0 0 12 12" { rect.truth y="3" width="12" height="6" {} } "anomalous by its labels" }
                        span { svg viewBox="0 0 12 12" { circle.found cx="6" cy="6" r="4" {} } "found" }
                        span { svg viewBox="0 0 12 12" { circle.missed cx="6" cy="6" r="4" {} } "missed" }
                        span { svg viewBox="0 0 12 12" { path.false d="M6 1l5 9h-10z" {} } "false alarm" }
                    } @else {
                        span { svg viewBox="0 0 12 12" { circle.unjudged cx="6" cy="6" r="4" {} } "alarm" }
                    }
                }
            }
        }
    }

    fn pictures(&self) -> Markup {
        let report = self.report;
        html! {
            div.two {
                @if !self.curve.is_empty() {
                    section.card {
                        h2 { "Precision and recall" }
                        p.note { "At every threshold; the ring is where this one stands." }
                        (curve(&self.curve, report.recall.zip(report.precision)))
                    }
                }
                section.card {
                    h2 { (if self.is_judged() { "False alarms by hour of day" } else { "Alarms by hour of day" }) }
                    p.note {
                        @match report.alarm_hours.worst_hour.zip(report.alarm_hours.worst_over_mean) {
                            Some((hour, times)) => { (format!("UTC. {hour:02}:00 is the worst: {times:.1} times the mean.")) },
                            None => { "UTC. There were none." },
                        }
                    }
                    (hours(&report.alarm_hours))
                }
            }
        }
    }

    fn types(&self) -> Markup {
        let types = &self.report.anomaly_types;
        html! {
            @if !types.is_empty() {
                section.card {
                    h2 { "By type of anomaly" }
                    p.note { "A window with lines of several types counts for each." }
                    div.scroll { table #types {
                        thead { tr {
                            th.left { "type" } th { "windows" } th { "alarmed" } th { "recall" }
                            th { "incidents" } th { "found" } th { "median" } th { "95 of 100" }
                        } }
                        tbody { @for kind in types { tr {
                            td.left { (kind.name) }
                            td { (grouped(kind.windows)) } td { (grouped(kind.alarmed)) }
                            td { (decimal(kind.recall, 3)) }
                            td { (grouped(kind.incidents.count)) } td { (grouped(kind.incidents.found)) }
                            td { (seconds(kind.incidents.median_s)) } td { (seconds(kind.incidents.p95_s)) }
                        } } }
                    } }
                }
            }
        }
    }

    fn sweep(&self) -> Markup {
        let report = self.report;
        let budget = report.budget.map(|budget| budget.alarms_per_day);
        html! {
            @if !report.sweep.is_empty() {
                section.card {
                    h2 { "Other budgets" }
                    p.note {
                        "The same severities against the thresholds of other budgets; this run's is "
                        "marked."
                        @if report.capped_windows > 0 {
                            " As if nothing were held back, which this young model did with "
                            (grouped(report.capped_windows))
                            " windows once its alarms of the day were spent."
                        }
                    }
                    div.scroll { table #sweep {
                        thead { tr {
                            th { "budget a day" } th { "severity" } th { "alarms" } th { "precision" }
                            th { "recall" } th { "F1" }
                            th { (if self.is_judged() { "false a day" } else { "alarms a day" }) }
                        } }
                        tbody { @for row in &report.sweep {
                            tr.now[budget == Some(row.alarms_per_day)] {
                                td { (row.alarms_per_day) } td { (format!("{:.2}", row.severity)) }
                                td { (grouped(row.alarms)) } td { (decimal(row.precision, 3)) }
                                td { (decimal(row.recall, 3)) } td { (decimal(row.f1, 3)) }
                                td { (decimal(row.false_alarms_per_day, 2)) }
                            }
                        } }
                    } }
                }
            }
        }
    }

    fn lists(&self) -> Markup {
        let report = self.report;
        html! {
            @if self.is_judged() {
                (cases("misses", "Worst misses", "Anomalous windows that did not alarm; those that looked most normal first.", &report.worst_misses))
                (cases("false-alarms", "Worst false alarms", "Normal windows that alarmed, the strangest first.", &report.worst_false_alarms))
            }
            @if !report.strongest_unjudged.is_empty() || !self.is_judged() {
                (cases("alarms", "Strongest alarms", "No label says whether they were right.", &report.strongest_unjudged))
            }
        }
    }

    fn footer(&self) -> Markup {
        let report = self.report;
        html! {
            footer {
                (format!("{:.2} days", report.days))
                @if report.judged_days < report.days {
                    (format!(" ({:.2} judged)", report.judged_days))
                }
                ", " (grouped(report.empty_windows)) " windows without lines (normal, if there are labels), "
                (grouped(report.unlabelled_windows)) " without labels (in no ratio), "
                (grouped(report.rejected)) " lines rejected, " (grouped(report.late)) " late. "
                "Labels decide nothing but what is counted here. Log lines are redacted."
            }
        }
    }
}

fn tile(class: &str, value: &str, remark: &str) -> Markup {
    html! { div class=(format!("tile {class}")) { b { (value) } span { (remark) } } }
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0} s"))
}

//! The figures, as one JSON object or as a table for a person.

use std::io::{self, Write};

use serde::Serialize;

use super::{BestThreshold, Budget};

/// Width of the column of names, in characters.
const NAME_WIDTH: usize = 18;

/// What an evaluation found. Serialises to the JSON object that `replay --json` prints; figures
/// that the input does not give (no labels, nothing to divide by) are null there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Log lines decoded.
    pub events: u64,
    /// Windows scored, empty ones included.
    pub windows: u64,
    /// Windows with at least one anomalous line.
    pub anomalous_windows: Option<u64>,
    /// Windows that alarmed, whether they carry labels or not.
    pub alarms: u64,
    /// Anomalous windows that alarmed.
    pub tp: Option<u64>,
    /// Normal windows that alarmed.
    pub fp: Option<u64>,
    /// Anomalous windows that did not.
    #[serde(rename = "fn")]
    pub fn_: Option<u64>,
    /// Normal windows that did not.
    pub tn: Option<u64>,
    /// Share of the alarms on windows with a truth that were right.
    pub precision: Option<f64>,
    /// Share of the anomalous windows that alarmed.
    pub recall: Option<f64>,
    /// Harmonic mean of both.
    pub f1: Option<f64>,
    /// Probability that an anomalous window ranks above a normal one by severity.
    pub roc_auc: Option<f64>,
    /// Wall time of the run, in seconds.
    pub seconds: f64,
    /// Average precision of the ranking by severity.
    pub pr_auc: Option<f64>,
    /// Rows or records that could not be decoded.
    pub rejected: u64,
    /// Log lines that came too late for their window.
    pub late: u64,
    /// Windows with at least one labelled line.
    pub labelled_windows: u64,
    /// Windows without lines: normal, if the input carries labels at all.
    pub empty_windows: u64,
    /// Windows with lines but no label: in no ratio.
    pub unlabelled_windows: u64,
    /// Streams seen.
    pub streams: u64,
    /// Start of the first window, RFC 3339.
    pub start: Option<String>,
    /// End of the last window, RFC 3339.
    pub end: Option<String>,
    /// Days from the one to the other.
    pub days: f64,
    /// Alarms a day.
    pub alarms_per_day: Option<f64>,
    /// Runs of alarmed windows of a stream that follow each other without a gap.
    pub episodes: u64,
    /// False alarms against the budget; absent if there was none.
    pub budget: Option<Budget>,
    /// Recall per kind of anomaly, by name; empty if the input names none.
    pub anomaly_types: Vec<TypeRecall>,
    /// The best that the ranking could give with a threshold chosen by the labels.
    pub best_f1_using_labels: Option<BestThreshold>,
    /// Alarms outside the truth per hour of the day, UTC.
    pub false_alarms_by_hour: [u64; 24],
}

/// How many windows of one kind of anomaly alarmed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TypeRecall {
    /// The kind, as the input names it.
    pub name: String,
    /// Anomalous windows with such a line.
    pub windows: u64,
    /// Of these, windows that alarmed.
    pub alarmed: u64,
    /// Share that alarmed.
    pub recall: Option<f64>,
}

impl Report {
    /// Writes the report as one line of JSON.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes the report as an aligned table, without colour.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_input(out)?;
        self.write_alarms(out)?;
        if self.labelled_windows == 0 {
            return writeln!(
                out,
                "\nThe input carries no labels: alarms are counted, not judged."
            );
        }
        self.write_confusion(out)?;
        self.write_ratios(out)?;
        self.write_types(out)?;
        self.write_notes(out)
    }

    fn write_input(&self, out: &mut dyn Write) -> io::Result<()> {
        let rate = if self.seconds > 0.0 {
            format!(
                ", {} a second",
                grouped_round(self.events as f64 / self.seconds)
            )
        } else {
            String::new()
        };
        let in_time = format!("in {:.1} s{rate}", self.seconds);
        line(out, "events", &grouped(self.events), &in_time)?;
        if self.rejected > 0 {
            line(
                out,
                "rejected",
                &grouped(self.rejected),
                "rows that could not be decoded",
            )?;
        }
        if self.late > 0 {
            line(
                out,
                "late",
                &grouped(self.late),
                "events after their window was final",
            )?;
        }
        let mut windows = format!("{} empty", grouped(self.empty_windows));
        if self.streams > 1 {
            windows = format!("{windows}, of {} streams", grouped(self.streams));
        }
        line(out, "windows", &grouped(self.windows), &windows)?;
        if let (Some(start), Some(end)) = (&self.start, &self.end) {
            let span = format!("{start} to {end}");
            line(out, "days", &format!("{:.2}", self.days), &span)?;
        }
        Ok(())
    }

    fn write_alarms(&self, out: &mut dyn Write) -> io::Result<()> {
        let episodes = format!(
            "{} a day, in {} {}",
            decimal(self.alarms_per_day, 1),
            grouped(self.episodes),
            if self.episodes == 1 {
                "episode"
            } else {
                "episodes"
            },
        );
        line(out, "alarms", &grouped(self.alarms), &episodes)?;
        let Some(budget) = self.budget else {
            return Ok(());
        };
        let range = budget
            .usual_range
            .map_or_else(String::new, |(least, most)| {
                format!(" ({least} to {most} in 95 of 100 cases)")
            });
        let against = format!(
            "{} expected at {} a day{range}: budget {}",
            decimal(
                Some(budget.expected),
                if budget.expected < 10.0 { 2 } else { 0 }
            ),
            budget.alarms_per_day,
            if budget.kept { "kept" } else { "exceeded" },
        );
        let name = if self.labelled_windows > 0 {
            "false alarms"
        } else {
            "if all were false"
        };
        line(out, name, &grouped(budget.actual), &against)
    }

    fn write_confusion(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "\n{:NAME_WIDTH$} {:>12} {:>12}",
            "", "alarm", "no alarm"
        )?;
        for (name, alarm, no_alarm) in [
            ("anomalous", self.tp, self.fn_),
            ("normal", self.fp, self.tn),
        ] {
            let (alarm, no_alarm) = (whole(alarm), whole(no_alarm));
            writeln!(out, "{name:NAME_WIDTH$} {alarm:>12} {no_alarm:>12}")?;
        }
        writeln!(out)
    }

    fn write_ratios(&self, out: &mut dyn Write) -> io::Result<()> {
        line(
            out,
            "precision",
            &decimal(self.precision, 4),
            "of the alarms were right",
        )?;
        line(
            out,
            "recall",
            &decimal(self.recall, 4),
            "of the anomalous windows alarmed",
        )?;
        line(out, "f1", &decimal(self.f1, 4), "")?;
        line(
            out,
            "roc auc",
            &decimal(self.roc_auc, 4),
            "of the severity, whatever the threshold",
        )?;
        line(
            out,
            "pr auc",
            &decimal(self.pr_auc, 4),
            "average precision of the severity",
        )?;
        let Some(best) = self.best_f1_using_labels else {
            return Ok(());
        };
        let at = format!(
            "at severity {:.2}, chosen by the labels: an upper bound, no result",
            best.severity
        );
        line(out, "best possible f1", &decimal(Some(best.f1), 4), &at)
    }

    fn write_types(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.anomaly_types.is_empty() {
            return Ok(());
        }
        let shown = |name: &str| -> String {
            let name: String = name.chars().take(40).collect();
            name.escape_debug().to_string()
        };
        let names = self.anomaly_types.iter().map(|kind| shown(&kind.name));
        let width = names
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0)
            .max(NAME_WIDTH);
        writeln!(
            out,
            "\n{:width$} {:>12} {:>12} {:>12}",
            "anomaly type", "windows", "alarmed", "recall"
        )?;
        for kind in &self.anomaly_types {
            writeln!(
                out,
                "{:width$} {:>12} {:>12} {:>12}",
                shown(&kind.name),
                grouped(kind.windows),
                grouped(kind.alarmed),
                decimal(kind.recall, 4)
            )?;
        }
        Ok(())
    }

    fn write_notes(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.empty_windows > 0 || self.unlabelled_windows > 0 {
            writeln!(out)?;
        }
        if self.empty_windows > 0 {
            writeln!(out, "Windows without lines count as normal.")?;
        }
        if self.unlabelled_windows > 0 {
            let windows = grouped(self.unlabelled_windows);
            writeln!(
                out,
                "Windows whose lines carry no label are in no ratio: {windows}."
            )?;
        }
        Ok(())
    }
}

fn line(out: &mut dyn Write, name: &str, value: &str, remark: &str) -> io::Result<()> {
    let text = format!("{name:NAME_WIDTH$} {value:>12}  {remark}");
    writeln!(out, "{}", text.trim_end())
}

/// Returns the number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive, and the cast saturates"
)]
fn grouped_round(number: f64) -> String {
    grouped(number.round() as u64)
}

fn whole(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), grouped)
}

fn decimal(number: Option<f64>, places: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.places$}"))
}

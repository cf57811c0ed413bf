//! The figures as an aligned table for a person, without colour.

use std::io::{self, Write};

use super::{AlarmHours, Report};

/// Width of the column of names, in characters.
const NAME_WIDTH: usize = 18;

impl Report {
    /// Writes the report as an aligned table, without colour.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_input(out)?;
        self.write_alarms(out)?;
        if self.labelled_windows == 0 {
            self.write_hours(out)?;
            self.write_sweep(out)?;
            return writeln!(
                out,
                "\nThe input carries no labels: alarms are counted, not judged."
            );
        }
        self.write_confusion(out)?;
        self.write_ratios(out)?;
        self.write_incidents(out)?;
        self.write_hours(out)?;
        self.write_types(out)?;
        self.write_sweep(out)?;
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
            let mut span = format!("{start} to {end}");
            if self.judged_days < self.days {
                span = format!("{span}, {:.2} judged", self.judged_days);
            }
            line(out, "days", &format!("{:.2}", self.days), &span)?;
        }
        Ok(())
    }

    fn write_alarms(&self, out: &mut dyn Write) -> io::Result<()> {
        let episodes = format!(
            "{} a day, in {} {}, {} a day",
            decimal(self.alarms_per_day, 1),
            grouped(self.episodes),
            if self.episodes == 1 {
                "episode"
            } else {
                "episodes"
            },
            decimal(self.episodes_per_day, 1),
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

    fn write_incidents(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(incidents) = &self.incidents else {
            return Ok(());
        };
        let mut found = format!("of {} found", grouped(incidents.count));
        if let (Some(median), Some(p95)) = (incidents.median_s, incidents.p95_s) {
            found = format!(
                "{found}; told {median:.0} s after their first line (median), 95 of 100 within {p95:.0} s"
            );
        }
        line(out, "incidents", &grouped(incidents.found), &found)
    }

    fn write_hours(&self, out: &mut dyn Write) -> io::Result<()> {
        let AlarmHours {
            per_hour,
            worst_hour,
            worst_over_mean,
            ..
        } = &self.alarm_hours;
        let (Some(hour), Some(times)) = (worst_hour, worst_over_mean) else {
            return Ok(());
        };
        let what = if self.labelled_windows > 0 {
            "false alarms"
        } else {
            "alarms"
        };
        let remark = format!(
            "times the mean: {hour:02}:00 UTC with {} {what}",
            grouped(per_hour[*hour])
        );
        line(out, "worst hour", &format!("{times:.1}"), &remark)
    }

    fn write_sweep(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.sweep.is_empty() {
            return Ok(());
        }
        let false_a_day = if self.labelled_windows > 0 {
            "false a day"
        } else {
            "alarms a day"
        };
        writeln!(
            out,
            "\n{:NAME_WIDTH$} {:>12} {:>12} {:>12} {:>12} {false_a_day:>12}",
            "budget a day", "severity", "precision", "recall", "f1"
        )?;
        for row in &self.sweep {
            writeln!(
                out,
                "{:NAME_WIDTH$} {:>12.2} {:>12} {:>12} {:>12} {:>12}",
                row.alarms_per_day,
                row.severity,
                decimal(row.precision, 4),
                decimal(row.recall, 4),
                decimal(row.f1, 4),
                decimal(row.false_alarms_per_day, 2),
            )?;
        }
        if self.capped_windows > 0 {
            let windows = grouped(self.capped_windows);
            writeln!(
                out,
                "\nHeld back, since the model is young and its alarms of the day were spent: \
                 {windows}. Budgets are given as if nothing were."
            )?;
        }
        Ok(())
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
            "\n{:width$} {:>12} {:>12} {:>12} {:>12} {:>12}",
            "anomaly type", "windows", "alarmed", "recall", "incidents", "median s"
        )?;
        for kind in &self.anomaly_types {
            let incidents = &kind.incidents;
            writeln!(
                out,
                "{:width$} {:>12} {:>12} {:>12} {:>12} {:>12}",
                shown(&kind.name),
                grouped(kind.windows),
                grouped(kind.alarmed),
                decimal(kind.recall, 4),
                format!("{} of {}", incidents.found, incidents.count),
                decimal(incidents.median_s, 0),
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
                "Windows whose lines carry no label are in no ratio, and their time in no rate of \
                 false alarms: {windows}."
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
pub(super) fn grouped(number: u64) -> String {
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

pub(super) fn decimal(number: Option<f64>, places: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.places$}"))
}

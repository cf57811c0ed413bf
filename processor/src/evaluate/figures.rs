//! The figures of several judges of one input, side by side.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Budget, Incidents, Report,
    text::{decimal, grouped},
};

/// Width of the column of names, and of each judge's.
const NAME_WIDTH: usize = 20;
const WIDTH: usize = 20;

/// What one judge made of the input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Its name: a detector, or the directory of a model.
    pub name: String,
    /// Checksum of its model.
    pub model_checksum: String,
    /// Windows that alarmed.
    pub alarms: u64,
    /// Alarms a day.
    pub alarms_per_day: Option<f64>,
    /// False alarms a day; all alarms if the input carries no labels.
    pub false_alarms_per_day: Option<f64>,
    /// False alarms against the budget.
    pub budget: Option<Budget>,
    /// See [`Report::precision`].
    pub precision: Option<f64>,
    /// See [`Report::recall`].
    pub recall: Option<f64>,
    /// See [`Report::f1`].
    pub f1: Option<f64>,
    /// See [`Report::roc_auc`].
    pub roc_auc: Option<f64>,
    /// See [`Report::pr_auc`].
    pub pr_auc: Option<f64>,
    /// Incidents found, and how fast; absent without labels.
    pub incidents: Option<Incidents>,
}

impl Figures {
    /// Returns what `report` says, under the judge's name.
    #[must_use]
    pub fn of(name: &str, model_checksum: &str, report: &Report) -> Self {
        let false_alarms = report.fp.unwrap_or(report.alarms);
        Self {
            name: name.to_owned(),
            model_checksum: model_checksum.to_owned(),
            alarms: report.alarms,
            alarms_per_day: report.alarms_per_day,
            false_alarms_per_day: super::ratio(false_alarms as f64, report.judged_days),
            budget: report.budget,
            precision: report.precision,
            recall: report.recall,
            f1: report.f1,
            roc_auc: report.roc_auc,
            pr_auc: report.pr_auc,
            incidents: report.incidents.clone(),
        }
    }
}

/// Writes a table with a column per judge, each under a short heading of its own.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_side_by_side(judges: &[(&str, &Figures)], out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{:NAME_WIDTH$}", "")?;
    for (heading, _) in judges {
        write!(out, " {heading:>WIDTH$}")?;
    }
    writeln!(out)?;
    let mut row = |name: &str, cell: &dyn Fn(&Figures) -> String| {
        write!(out, "{name:NAME_WIDTH$}")?;
        for &(_, judge) in judges {
            write!(out, " {:>WIDTH$}", cell(judge))?;
        }
        writeln!(out)
    };
    row("f1", &|judge| decimal(judge.f1, 4))?;
    row("roc auc", &|judge| decimal(judge.roc_auc, 4))?;
    row("pr auc", &|judge| decimal(judge.pr_auc, 4))?;
    row("precision", &|judge| decimal(judge.precision, 4))?;
    row("recall", &|judge| decimal(judge.recall, 4))?;
    row("alarms", &|judge| grouped(judge.alarms))?;
    let labelled = judges.iter().any(|(_, judge)| judge.incidents.is_some());
    let name = if labelled {
        "false a day"
    } else {
        "alarms a day"
    };
    row(name, &|judge| decimal(judge.false_alarms_per_day, 2))?;
    row("budget a day", &|judge| {
        judge.budget.map_or_else(
            || "-".to_owned(),
            |budget| {
                let kept = if budget.kept { "kept" } else { "exceeded" };
                format!("{}, {kept}", budget.alarms_per_day)
            },
        )
    })?;
    row("incidents found", &|judge| {
        let incidents = judge.incidents.as_ref();
        incidents.map_or_else(
            || "-".to_owned(),
            |it| format!("{} of {}", it.found, it.count),
        )
    })?;
    row("median s to alarm", &|judge| {
        decimal(judge.incidents.as_ref().and_then(|it| it.median_s), 0)
    })
}

//! What `logguard evidence` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    comparison::Comparison,
    records::{Records, ShownLine},
};
use crate::sink::{alarm_file::printable, store::StoredAlarm};

/// Differences shown; the rest is counted.
const DIFFERENCES_SHOWN_MAX: usize = 10;

/// Whether an alarm is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofOutcome {
    /// Everything compared is identical, bit for bit.
    Proved,
    /// Something is not.
    Differs,
    /// Something that the proof needs is gone.
    CannotBeProved,
}

/// The outcome, and all that led to it.
#[derive(Debug, Serialize)]
pub struct EvidenceReport {
    /// Whether it is proved.
    pub outcome: ProofOutcome,
    /// The clock decided when its window was scored, and the final row may disagree.
    by_the_clock: bool,
    alarm: StoredAlarm,
    lines: Vec<ShownLine>,
    line_count: usize,
    missing: Vec<String>,
    comparison: Option<Comparison>,
    #[serde(skip)]
    place: String,
}

impl EvidenceReport {
    pub(super) fn new(
        alarm: StoredAlarm,
        records: Records,
        comparison: Option<Comparison>,
        missing: Vec<String>,
    ) -> Self {
        let differs = |comparison: &Comparison| !comparison.differences.is_empty();
        let outcome = match &comparison {
            _ if !missing.is_empty() => ProofOutcome::CannotBeProved,
            None => ProofOutcome::CannotBeProved,
            Some(comparison) if differs(comparison) => ProofOutcome::Differs,
            Some(_) => ProofOutcome::Proved,
        };
        Self {
            outcome,
            by_the_clock: alarm.provisional,
            place: records.place(),
            lines: records.lines,
            line_count: records.line_count,
            alarm,
            missing,
            comparison,
        }
    }

    /// Writes it as one JSON object.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes it for a person; what could steer a terminal is escaped.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let alarm = &self.alarm;
        let bounds = alarm.bounds();
        writeln!(
            out,
            "alarm    {} {}",
            alarm.alarm_id,
            printable(&alarm.stream)
        )?;
        writeln!(out, "window   {} to {}", bounds.start, bounds.end)?;
        writeln!(
            out,
            "score    {} severity {} (anomalous from {})",
            alarm.anomaly_score,
            alarm.severity,
            -alarm.threshold.log10()
        )?;
        for reason in &alarm.reasons {
            writeln!(out, "why      {}", printable(reason))?;
        }
        writeln!(out, "model    {}", printable(&alarm.model_checksum))?;
        writeln!(out, "records  {}", printable(&self.place))?;
        self.write_lines(out)?;
        if self.by_the_clock {
            writeln!(
                out,
                "note     by the clock: scored before the window was final, which a replay does \
                 not do"
            )?;
        }
        self.write_outcome(out)
    }

    fn write_lines(&self, out: &mut impl Write) -> io::Result<()> {
        for line in &self.lines {
            writeln!(
                out,
                "  {} {} {} {} {}",
                line.offset,
                line.time,
                line.level,
                printable(&line.service),
                printable(&line.message)
            )?;
        }
        let more = self.line_count - self.lines.len();
        if more > 0 {
            writeln!(out, "  and {more} more (--lines {})", self.line_count)?;
        }
        Ok(())
    }

    fn write_outcome(&self, out: &mut impl Write) -> io::Result<()> {
        for missing in &self.missing {
            writeln!(out, "missing  {}", printable(missing))?;
        }
        if let Some(comparison) = &self.comparison {
            for it in comparison.differences.iter().take(DIFFERENCES_SHOWN_MAX) {
                let (stored, again) = (it.stored.to_string(), it.again.to_string());
                writeln!(
                    out,
                    "differs  {}: stored {}, again {}",
                    it.field,
                    printable(&stored),
                    printable(&again)
                )?;
            }
            let more = comparison.differences.len();
            if more > DIFFERENCES_SHOWN_MAX {
                writeln!(out, "         and {} more", more - DIFFERENCES_SHOWN_MAX)?;
            }
        }
        match (self.outcome, &self.comparison) {
            (ProofOutcome::Proved, Some(comparison)) => writeln!(
                out,
                "proved   scored again from {} lines: {} values identical, bit for bit",
                self.line_count, comparison.identical
            ),
            (ProofOutcome::Differs, _) => {
                writeln!(out, "differs  scored again, it is not the same")
            }
            _ => writeln!(out, "cannot be proved"),
        }
    }
}

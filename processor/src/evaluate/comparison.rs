//! What model B changes against model A, window by window, and whether it is worse.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Figures, ratio,
    text::{decimal, grouped},
    write_side_by_side,
};
use crate::model::ScoredWindow;

/// Most windows listed in which the two disagree.
pub const DISAGREEMENTS_MAX: usize = 20;
/// Reasons shown of each.
const REASONS_SHOWN: usize = 2;

/// What one model says of a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Opinion {
    /// It alarmed.
    pub alarmed: bool,
    /// -log10 of the combined p-value.
    pub severity: f64,
    /// Why.
    pub reasons: Vec<String>,
}

impl From<&ScoredWindow> for Opinion {
    fn from(scored: &ScoredWindow) -> Self {
        Self {
            alarmed: scored.verdict.is_anomaly,
            severity: scored.verdict.severity,
            reasons: scored.explanation.reasons.clone(),
        }
    }
}

/// A window in which one model alarmed and the other did not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Disagreement {
    /// Its stream.
    pub stream: String,
    /// First instant, RFC 3339.
    pub start: String,
    /// Lines.
    pub lines: u32,
    /// Whether it is anomalous; absent if its lines carry no label.
    pub anomalous: Option<bool>,
    /// What A says.
    pub a: Opinion,
    /// What B says.
    pub b: Opinion,
}

impl Disagreement {
    fn gap(&self) -> f64 {
        (self.a.severity - self.b.severity).abs()
    }
}

/// How the two judged each window.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Windows in which both alarmed.
    pub both: u64,
    /// Windows in which only A did.
    pub only_a: u64,
    /// Windows in which only B did.
    pub only_b: u64,
    /// Windows in which neither did.
    pub neither: u64,
    /// Where they disagree, the widest apart first; at most [`DISAGREEMENTS_MAX`].
    pub disagreements: Vec<Disagreement>,
}

impl Agreement {
    /// Takes a window as both scored it.
    pub fn add(&mut self, a: &ScoredWindow, b: &ScoredWindow) {
        match (a.verdict.is_anomaly, b.verdict.is_anomaly) {
            (true, true) => self.both += 1,
            (false, false) => self.neither += 1,
            (true, false) => {
                self.only_a += 1;
                self.keep(a, b);
            }
            (false, true) => {
                self.only_b += 1;
                self.keep(a, b);
            }
        }
    }

    fn keep(&mut self, a: &ScoredWindow, b: &ScoredWindow) {
        let content = &a.window.content;
        let found = Disagreement {
            stream: a.window.stream.to_string(),
            start: a.window.bounds.start.to_string(),
            lines: content.lines(),
            anomalous: (content.labelled > 0).then_some(content.anomalous > 0),
            a: Opinion::from(a),
            b: Opinion::from(b),
        };
        let list = &mut self.disagreements;
        let place = list.partition_point(|known| known.gap().total_cmp(&found.gap()).is_ge());
        if place < DISAGREEMENTS_MAX {
            list.insert(place, found);
            list.truncate(DISAGREEMENTS_MAX);
        }
    }
}

/// How many overlays of a kind each model found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverlayRecall {
    /// What was laid over normal windows.
    pub kind: &'static str,
    /// Windows tried.
    pub tried: u64,
    /// Found by A.
    pub found_a: u64,
    /// Found by B.
    pub found_b: u64,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The figures of A.
    pub a: Figures,
    /// The figures of B.
    pub b: Figures,
    /// Windows judged.
    pub windows: u64,
    /// Windows that are anomalous by their labels; absent without labels.
    pub anomalous_windows: Option<u64>,
    /// How the two agree.
    pub agreement: Agreement,
    /// Found of what was laid over copies of normal windows, per kind.
    pub overlays: Vec<OverlayRecall>,
    /// Shares found over all kinds, by A and by B; absent if there was no window to try.
    pub overlay_recall: Option<(f64, f64)>,
    /// By how much B may be worse.
    pub tolerance: f64,
    /// Why B is worse; absent if it is not.
    pub worse: Option<String>,
}

impl Comparison {
    /// Decides whether B is worse, by the labels if there are anomalous windows, else by overlays and
    /// alarms.
    pub fn decide(&mut self) {
        let sum = |of: fn(&OverlayRecall) -> u64| self.overlays.iter().map(of).sum::<u64>() as f64;
        let tried = sum(|kind| kind.tried);
        let found = |of| ratio(sum(of), tried);
        self.overlay_recall = found(|kind| kind.found_a).zip(found(|kind| kind.found_b));
        self.worse = if self.anomalous_windows.unwrap_or(0) > 0 {
            self.worse_by_labels()
        } else {
            self.worse_by_overlays().or_else(|| self.worse_by_alarms())
        };
    }

    fn worse_by_labels(&self) -> Option<String> {
        let (a, b) = (self.a.f1.unwrap_or(0.0), self.b.f1.unwrap_or(0.0));
        (b < a - self.tolerance).then(|| format!("its F1 is {b:.4}, that of A {a:.4}"))
    }

    fn worse_by_overlays(&self) -> Option<String> {
        let (a, b) = self.overlay_recall?;
        let worse = b < a - self.tolerance;
        worse.then(|| format!("it finds {b:.4} of the overlays, A {a:.4}"))
    }

    fn worse_by_alarms(&self) -> Option<String> {
        let kept = self.b.budget.is_none_or(|budget| budget.kept);
        let more = self.b.alarms as f64 > self.a.alarms as f64 * (1.0 + self.tolerance);
        let (a, b) = (self.a.alarms, self.b.alarms);
        (!kept && more).then(|| format!("it alarms {b} times, beyond its budget, A {a} times"))
    }

    /// Writes one line of JSON.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes tables for a person.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for (heading, judge) in [("A", &self.a), ("B", &self.b)] {
            let (name, checksum) = (judge.name.escape_debug(), &judge.model_checksum);
            writeln!(out, "{heading}  {name} ({checksum})")?;
        }
        writeln!(out)?;
        write_side_by_side(&[("A", &self.a), ("B", &self.b)], out)?;
        let Agreement {
            both,
            only_a,
            only_b,
            neither,
            disagreements,
        } = &self.agreement;
        let [both, only_a, only_b, neither] = [both, only_a, only_b, neither].map(|n| grouped(*n));
        writeln!(
            out,
            "\nwindows: both alarm {both}, only A {only_a}, only B {only_b}, neither {neither}"
        )?;
        self.write_overlays(out)?;
        for window in disagreements {
            write_disagreement(window, out)?;
        }
        match &self.worse {
            Some(why) => writeln!(out, "\nB is worse: {why} (tolerance {})", self.tolerance),
            None => writeln!(out, "\nB is not worse (tolerance {})", self.tolerance),
        }
    }

    fn write_overlays(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some((a, b)) = self.overlay_recall else {
            return Ok(());
        };
        writeln!(
            out,
            "\n{:20} {:>12} {:>12} {:>12}",
            "laid over", "windows", "A finds", "B finds"
        )?;
        for kind in &self.overlays {
            let OverlayRecall {
                kind,
                tried,
                found_a,
                found_b,
            } = kind;
            writeln!(out, "{kind:20} {tried:>12} {found_a:>12} {found_b:>12}")?;
        }
        let (a, b) = (decimal(Some(a), 4), decimal(Some(b), 4));
        writeln!(out, "{:20} {:>12} {a:>12} {b:>12}", "share", "")
    }
}

fn write_disagreement(window: &Disagreement, out: &mut dyn Write) -> io::Result<()> {
    let truth = match window.anomalous {
        None => "no label",
        Some(true) => "anomalous",
        Some(false) => "normal",
    };
    let stream = window.stream.escape_debug();
    writeln!(
        out,
        "\n{} {stream} {} lines, {truth}",
        window.start, window.lines
    )?;
    for (name, opinion) in [("A", &window.a), ("B", &window.b)] {
        let alarm = if opinion.alarmed { "alarm" } else { "none" };
        writeln!(out, "  {name} {alarm:5} {:>8.2}", opinion.severity)?;
        for reason in opinion.reasons.iter().take(REASONS_SHOWN) {
            writeln!(out, "      {}", reason.escape_debug())?;
        }
    }
    Ok(())
}

//! Trains on one CSV of labelled lines, scores another, and prints how well the two agree.
//!
//! `cargo run --release --example evaluate -- TRAIN.csv TEST.csv ALARMS_PER_DAY [--verbose]`
//!
//! Columns: `timestamp` (milliseconds since the epoch), `level`, `service`, `message`, and labels
//! `is_anomaly` and, optionally, `block_anomaly`.
#![allow(clippy::print_stdout, reason = "a program")]

use std::{borrow::Cow, collections::BTreeMap, num::NonZeroUsize, path::Path, sync::Arc};

use anyhow::{Context, Result};
use logguard::{
    decode::{Masker, TemplateDictionary},
    event::{EventTime, Level, LogEvent, StreamKey, TopicPartition},
    model::{Baseline, Detector, ScoredWindow, Trainer},
    window::{ClosedWindow, FinalBy, StreamProgress, WindowBounds, WindowContent},
};

const LENGTH_MS: i64 = 30_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [train, test, budgets, rest @ ..] = &arguments[..] else {
        anyhow::bail!("usage: evaluate TRAIN.csv TEST.csv ALARMS_PER_DAY[,…] [--verbose]");
    };
    let mut trainer = Trainer::new(&Masker::default_rules(), LENGTH_MS)?;
    for (window, _) in windows(Path::new(train))? {
        trainer.add(&window);
    }
    let started = std::time::Instant::now();
    let bundle = Arc::new(trainer.finish(&mut |_| {})?);
    println!("{:?} in {:?}", bundle.summary(), started.elapsed());
    if std::env::var_os("DUMP").is_some() {
        bundle.save(Path::new("/tmp/proto"))?;
    }
    let windows = windows(Path::new(test))?;
    for budget in budgets.split(',') {
        let mut detector = Detector::new(Arc::clone(&bundle), budget.parse()?, 1);
        let mut baseline = Baseline::default();
        let started = std::time::Instant::now();
        let scored: Vec<_> = windows
            .iter()
            .map(|(window, block)| (detector.score(window.clone(), &mut baseline), *block))
            .collect();
        let each = started.elapsed() / u32::try_from(scored.len())?;
        println!("budget {budget}: {} ({each:?} a window)", figures(&scored));
        if rest.iter().any(|flag| flag == "--verbose") {
            list(&scored);
        }
    }
    Ok(())
}

fn truth(scored: &ScoredWindow) -> bool {
    scored.window.content.anomalous > 0
}

fn figures(scored: &[(ScoredWindow, bool)]) -> String {
    let count = |alarm: bool, label: bool| {
        let same =
            |s: &&(ScoredWindow, bool)| s.0.verdict.is_anomaly == alarm && truth(&s.0) == label;
        scored.iter().filter(same).count()
    };
    let (tp, fp, fn_) = (count(true, true), count(true, false), count(false, true));
    #[allow(clippy::cast_precision_loss, reason = "small")]
    let f1 = 2.0 * tp as f64 / (2 * tp + fp + fn_).max(1) as f64;
    let auc_of = |label: &dyn Fn(&(ScoredWindow, bool)) -> bool| {
        auc(scored
            .iter()
            .filter(|s| s.0.window.content.lines() > 0)
            .map(|s| (s.0.verdict.severity, label(s)))
            .collect())
    };
    format!(
        "windows {} tp {tp} fp {fp} fn {fn_} f1 {f1:.3} auc {:.4} block auc {:.4}",
        scored.len(),
        auc_of(&|s| truth(&s.0)),
        auc_of(&|s| s.1),
    )
}

#[allow(clippy::cast_precision_loss, reason = "small")]
fn auc(mut scores: Vec<(f64, bool)>) -> f64 {
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rank = 1.0;
    let mut positive_ranks = 0.0;
    for ties in scores.chunk_by(|a, b| a.0 == b.0) {
        let middle = rank + (ties.len() as f64 - 1.0) / 2.0;
        positive_ranks += middle * ties.iter().filter(|(_, label)| *label).count() as f64;
        rank += ties.len() as f64;
    }
    let positive = scores.iter().filter(|(_, label)| *label).count() as f64;
    let negative = scores.len() as f64 - positive;
    (positive_ranks - positive * (positive + 1.0) / 2.0) / (positive * negative)
}

fn list(scored: &[(ScoredWindow, bool)]) {
    for (scored, _) in scored {
        let verdict = &scored.verdict;
        if verdict.is_anomaly != truth(scored) {
            println!(
                "{} {} severity {:.2} lines {} {}",
                if verdict.is_anomaly { "FP" } else { "FN" },
                scored.window.bounds.start,
                verdict.severity,
                scored.window.content.lines(),
                scored.explanation.reasons.join("; ")
            );
        }
    }
}

/// The windows of a file in time order, empty ones included, and whether one holds a block's
/// anomaly.
fn windows(path: &Path) -> Result<Vec<(ClosedWindow, bool)>> {
    let masker = Masker::new(&Masker::default_rules())?;
    let capacity = NonZeroUsize::new(100_000).context("positive")?;
    let mut templates = TemplateDictionary::new(masker, capacity);
    let mut reader = csv::Reader::from_path(path)?;
    let headers = reader.headers()?.clone();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let (time, level, service, message, label) = (
        column("timestamp").context("timestamp")?,
        column("level").context("level")?,
        column("service").context("service")?,
        column("message").context("message")?,
        column("is_anomaly").context("is_anomaly")?,
    );
    let block = column("block_anomaly");
    let mut contents: BTreeMap<i64, (WindowContent, bool)> = BTreeMap::new();
    for record in reader.records() {
        let record = record?;
        let time = EventTime::from_millis(record[time].parse()?).context("time")?;
        let event = LogEvent {
            time,
            level: record[level].parse::<Level>().unwrap_or(Level::Info),
            service: Cow::Borrowed(&record[service]),
            message: Cow::Borrowed(&record[message]),
            label: Some(&record[label] == "1"),
        };
        let entry = contents
            .entry(time.window_start(LENGTH_MS).as_millis())
            .or_default();
        entry.0.add(&event, templates.resolve(&record[message]));
        entry.1 |= block.is_some_and(|block| &record[block] == "1");
    }
    let (Some((&first, _)), Some((&last, _))) =
        (contents.first_key_value(), contents.last_key_value())
    else {
        return Ok(Vec::new());
    };
    let step = usize::try_from(LENGTH_MS)?;
    Ok((first..=last)
        .step_by(step)
        .map(|start| {
            let (content, block) = contents.remove(&start).unwrap_or_default();
            (closed(start, content), block)
        })
        .collect())
}

fn closed(start: i64, content: WindowContent) -> ClosedWindow {
    let at = |millis| EventTime::from_millis(millis).unwrap_or_default();
    let bounds = WindowBounds {
        start: at(start),
        end: at(start + LENGTH_MS),
    };
    ClosedWindow {
        stream: StreamKey {
            partition: TopicPartition {
                topic: "file".into(),
                partition: 0,
            },
            service: None,
        },
        bounds,
        slot: bounds.start,
        first: false,
        content: Arc::new(content),
        span: None,
        final_by: FinalBy::End,
        gap: false,
        partial: false,
        progress: StreamProgress {
            row_end: bounds.end,
            empty_run: 0,
            seen_until: bounds.end,
        },
    }
}

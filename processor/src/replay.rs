//! `logguard replay`: the stages of `run` over files or a topic, from beginning to end, and how
//! the outcome compares with the labels, if there are any.
//!
//! ```text
//! files │ topic ─► Side (one per model: PartitionPipeline per partition) ─► Evaluation ─► report
//!                                                                        └─► result messages
//! ```
//!
//! Joins no group, commits nothing, alarms nobody. What it says of a topic is what `run` must have
//! said, whatever happened to it.

mod against;
mod alone;
mod input;
mod output;
mod overlay;
mod side;

use std::{io::Write, sync::Arc, time::Instant};

use self::{alone::Alone, input::Input, output::OutputFile, side::Side};
use crate::{
    cli::{DetectorArg, ReplayArgs},
    config::{Config, ConfigError},
    evaluate::{Evaluation, Figures, Heading, Report, write_side_by_side},
    event::EventTime,
    model::{Bundle, Detector, Mutes},
    mutes,
    pipeline::Shared,
    redact::Redactor,
    window::GroupBy,
};

/// What becomes of closed windows.
trait Observer {
    /// Takes what closed on each side: as many windows on each, in the same order.
    fn closed(&mut self, sides: &mut [Side<'_>]) -> anyhow::Result<()>;

    /// Notes that an anomalous line was of kind `name`.
    fn anomaly_type(&mut self, time: EventTime, name: &str);
}

/// Scores the input of `args` and prints how it went.
///
/// # Errors
/// Returns an error if the model or the input cannot be read, or an output cannot be written.
pub fn replay(config: &Config, args: &ReplayArgs, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(other) = &args.against {
        return against::against(config, args, other, out);
    }
    let started = Instant::now();
    let bundle = Arc::new(Bundle::load(&config.model.dir)?);
    let second = args.compare || args.detector == DetectorArg::IsolationForest;
    if second && !bundle.has_second_detector() {
        return Err(no_second_detector(config).into());
    }
    let checksum = Arc::clone(bundle.checksum());
    let input = Input::open(config, args)?;
    let heading = Heading {
        input: input.name(config),
        model: format!("{} ({checksum})", config.model.dir.display()),
        detector: detector_name(args.detector).to_owned(),
    };
    let side = Side::new(
        config,
        Arc::clone(&bundle),
        input.partitions(),
        read_mutes(config, args)?,
    )?;
    let create = |path: Option<&_>, flag| path.map(|path| OutputFile::create(path, flag));
    let page = create(args.html.as_deref(), "--html").transpose()?;
    let evaluation = || Evaluation::new(config.window.window_config().length_ms);
    let mut alone = Alone {
        second: args.compare.then(evaluation),
        detector: args.detector,
        evaluation: evaluation(),
        bundle,
        results: create(args.results.as_deref(), "--results").transpose()?,
    };
    let mut totals = input.read(config, &mut [side], &mut alone)?;
    totals.seconds = started.elapsed().as_secs_f64();
    if let Some(results) = alone.results {
        results.finish()?;
    }
    let report = alone.evaluation.report(&totals);
    if let Some(second) = &alone.second {
        let second = second.report(&totals);
        return write_detectors(&checksum, [&report, &second], args, out);
    }
    if let Some(mut page) = page {
        let made = alone.evaluation.page(&report, &heading);
        page.with(|out| made.write(out))?;
        page.finish()?;
    }
    write_report(&report, args, out)
}

fn no_second_detector(config: &Config) -> ConfigError {
    ConfigError::from(format!(
        "the model in `{}` holds no isolation forest; `logguard train --detector isolation-forest` \
         makes one that does, from a few hours of logs or more",
        config.model.dir.display()
    ))
}

fn detector_name(detector: DetectorArg) -> &'static str {
    match detector {
        DetectorArg::Signals => "signals",
        DetectorArg::IsolationForest => "isolation forest",
    }
}

fn write_detectors(
    checksum: &str,
    [signals, forest]: [&Report; 2],
    args: &ReplayArgs,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let [first, second] = [DetectorArg::Signals, DetectorArg::IsolationForest].map(detector_name);
    let figures = [
        Figures::of(first, checksum, signals),
        Figures::of(second, checksum, forest),
    ];
    if args.json {
        serde_json::to_writer(&mut *out, &serde_json::json!({ "detectors": figures }))?;
        writeln!(out)?;
    } else {
        let [signals, forest] = &figures;
        write_side_by_side(&[(first, signals), (second, forest)], out)?;
    }
    Ok(())
}

fn write_report(report: &Report, args: &ReplayArgs, out: &mut impl Write) -> anyhow::Result<()> {
    if args.json {
        report.write_json(out)
    } else {
        report.write_text(out)
    }?;
    Ok(())
}

fn read_mutes(config: &Config, args: &ReplayArgs) -> anyhow::Result<Option<Arc<Mutes>>> {
    if args.database_url.is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(mutes::read(config)?)))
}

/// Returns how many streams a topic of `partitions` partitions is taken to have.
fn streams(config: &Config, bundle: &Bundle, partitions: usize) -> usize {
    match config.window.group_by {
        GroupBy::Partition => partitions,
        GroupBy::Service => partitions * bundle.summary().services.max(1),
    }
}

/// Returns the caches and the scorer for a topic of `partitions` partitions.
///
/// # Errors
/// Returns an error if the bundle's masks or the redaction rules cannot be used.
pub(crate) fn shared(
    config: &Config,
    bundle: Arc<Bundle>,
    partitions: usize,
) -> anyhow::Result<Shared> {
    let streams = streams(config, &bundle, partitions);
    let alarms_per_day = config.model.alarms_per_day;
    tracing::debug!(
        alarms_per_day,
        streams,
        "the budget is shared by the streams"
    );
    let detector = Detector::new(bundle, alarms_per_day, streams);
    let redactor = Redactor::new(&config.redaction)?;
    let mut shared = Shared::redacting(detector, Arc::new(redactor))?;
    shared.set_early_alarms(config.model.early_alarms);
    Ok(shared)
}

/// Refuses a model made for windows of another length: its counts would mean something else.
///
/// # Errors
/// Returns an error that names both lengths.
pub(crate) fn check_window(config: &Config, bundle: &Bundle) -> Result<(), ConfigError> {
    let trained_s = bundle.window_length_ms() / 1_000;
    let length_s = i64::from(config.window.length_s);
    if trained_s == length_s {
        return Ok(());
    }
    Err(ConfigError::from(format!(
        "the model in `{}` was trained on windows of {trained_s} s, not {length_s} s: train again \
         with --window {length_s}, or run with --window {trained_s}",
        config.model.dir.display()
    )))
}

//! `logguard replay`: the stages of `run` over files or a topic, from beginning to end, and how
//! the outcome compares with the labels, if there are any.
//!
//! ```text
//! files │ topic ─► PartitionPipeline (one per partition) ─► Evaluation ─► report
//!                                                       └─► result messages, one JSON line each
//! ```
//!
//! Joins no group, commits nothing, alarms nobody. What it says of a topic is what `run` must have
//! said, whatever happened to it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use tempfile::NamedTempFile;

use crate::{
    cli::ReplayArgs,
    config::{Config, ConfigError},
    decode::RejectReason,
    evaluate::{EvaluatedWindow, Evaluation, RunTotals},
    event::{EventTime, Partial, TopicPartition},
    files::{parse_time, read_events},
    model::{Bundle, Detector, ScoredWindow},
    mutes,
    pipeline::{PartitionPipeline, Shared, Step},
    progress::CountBar,
    redact::Redactor,
    sink::results::result_message,
    source::{TopicEvent, TopicReader, file::ReadOptions},
    window::{GroupBy, Recovered},
};

/// Scores the input of `args` and prints how it went.
///
/// # Errors
/// Returns an error if the model or the input cannot be read, or an output cannot be written.
pub fn replay(config: &Config, args: &ReplayArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let started = Instant::now();
    let since = args.since.as_deref().map(parse_time).transpose()?;
    let bundle = Arc::new(Bundle::load(&config.model.dir)?);
    let (evaluation, mut totals) = if args.from_kafka {
        replay_topic(config, args, bundle, since)?
    } else {
        replay_files(config, args, bundle, since)?
    };
    totals.seconds = started.elapsed().as_secs_f64();
    totals.alarms_per_day = Some(config.model.alarms_per_day);
    let report = evaluation.report(&totals);
    if args.json {
        report.write_json(out)
    } else {
        report.write_text(out)
    }?;
    Ok(())
}

/// The run of one replay.
struct Replay<'a> {
    config: &'a Config,
    shared: Shared,
    pipelines: HashMap<i32, PartitionPipeline>,
    steps: Vec<Step<ScoredWindow>>,
    evaluation: Evaluation,
    results: Option<Results>,
    totals: RunTotals,
}

/// Where result messages go.
struct Results {
    out: BufWriter<ResultsFile>,
    path: PathBuf,
}

/// A file takes its name when it is complete, so that a replay that fails leaves the old one. A
/// pipe or a device is written to as it is.
enum ResultsFile {
    Unnamed(NamedTempFile),
    Device(File),
}

impl<'a> Replay<'a> {
    fn new(
        config: &'a Config,
        args: &ReplayArgs,
        bundle: Arc<Bundle>,
        partitions: usize,
    ) -> anyhow::Result<Self> {
        check_window(config, &bundle)?;
        let window = config.window.window_config();
        let mut shared = shared(config, bundle, partitions)?;
        if args.database_url.is_some() {
            shared.set_mutes(Arc::new(mutes::read(config)?));
        }
        Ok(Self {
            config,
            shared,
            pipelines: HashMap::new(),
            steps: Vec::new(),
            evaluation: Evaluation::new(window.length_ms),
            results: args.results.as_deref().map(Results::create).transpose()?,
            totals: RunTotals::default(),
        })
    }

    /// Begins a partition; `partial` if records before its first one are gone.
    fn start(&mut self, partition: i32, partial: bool) {
        let key = TopicPartition {
            partition,
            ..self.config.file_partition()
        };
        let partial = if partial {
            Partial::FromFirstRecord
        } else {
            Partial::No
        };
        let recovered = Recovered {
            partial,
            ..Recovered::default()
        };
        let window = self.config.window.window_config();
        let pipeline = PartitionPipeline::new(window, key, recovered, Vec::new());
        self.pipelines.insert(partition, pipeline);
    }

    /// Takes what the last record brought about; returns whether the record was counted.
    fn take_steps(&mut self) -> anyhow::Result<bool> {
        let mut counted = true;
        for step in self.steps.drain(..) {
            match step {
                // The final row has what an early alarm said.
                Step::Opened { .. } | Step::Deployed { .. } | Step::Early(_) => {}
                Step::Rejected { rejected, .. } => {
                    counted = false;
                    match rejected.reason {
                        RejectReason::Late => self.totals.late += 1,
                        _ => self.totals.rejected += 1,
                    }
                }
                Step::Closed(scored) => {
                    self.evaluation.add(EvaluatedWindow::from(&scored));
                    if let Some(results) = &mut self.results {
                        results.write(&scored)?;
                    }
                }
            }
        }
        Ok(counted)
    }

    fn end(&mut self, partition: i32) -> anyhow::Result<()> {
        if let Some(mut pipeline) = self.pipelines.remove(&partition) {
            pipeline.end(&mut self.shared, &mut self.steps);
            self.take_steps()?;
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<(Evaluation, RunTotals)> {
        if let Some(results) = self.results {
            results.finish()?;
        }
        Ok((self.evaluation, self.totals))
    }
}

impl Results {
    fn create(path: &Path) -> Result<Self, ConfigError> {
        let file = ResultsFile::create(path).map_err(|error| {
            let name = path.display();
            ConfigError::from(format!("cannot create `{name}` (--results): {error}"))
        })?;
        Ok(Self {
            out: BufWriter::new(file),
            path: path.to_owned(),
        })
    }

    fn write(&mut self, scored: &ScoredWindow) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, &result_message(scored, false))
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(self.out.write_all(b"\n")?))
            .with_context(|| format!("cannot write to `{}`", self.path.display()))
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self { out, path } = self;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.finish(&path))
            .with_context(|| format!("cannot write to `{}`", path.display()))
    }
}

impl ResultsFile {
    fn create(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return File::create(path).map(Self::Device);
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut file = tempfile::Builder::new();
        // Temporary files are private; results are for whom the umask lets read them.
        #[cfg(unix)]
        file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        file.tempfile_in(dir.unwrap_or(Path::new(".")))
            .map(Self::Unnamed)
    }

    fn finish(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Unnamed(file) => file.persist(path).map(drop).map_err(|error| error.error),
            Self::Device(mut file) => file.flush(),
        }
    }
}

impl Write for ResultsFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unnamed(file) => file.write(bytes),
            Self::Device(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unnamed(file) => file.flush(),
            Self::Device(file) => file.flush(),
        }
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
    let streams = match config.window.group_by {
        GroupBy::Partition => partitions,
        GroupBy::Service => partitions * bundle.summary().services.max(1),
    };
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

fn replay_files(
    config: &Config,
    args: &ReplayArgs,
    bundle: Arc<Bundle>,
    since: Option<EventTime>,
) -> anyhow::Result<(Evaluation, RunTotals)> {
    const PARTITION: i32 = 0;
    let mut replay = Replay::new(config, args, bundle, 1)?;
    replay.start(PARTITION, false);
    let options = ReadOptions {
        label_column: args.label_column.clone(),
        ..ReadOptions::default()
    };
    let lateness_ms = i64::from(config.window.lateness_ms);
    let read = read_events(&args.input, &options, lateness_ms, &mut |item| {
        if since.is_some_and(|since| item.event.time < since) {
            return Ok(());
        }
        let Some(pipeline) = replay.pipelines.get_mut(&PARTITION) else {
            return Ok(());
        };
        replay.totals.events += 1;
        pipeline.event(
            &mut replay.shared,
            &item.event,
            item.offset,
            &mut replay.steps,
        );
        let counted = replay.take_steps()?;
        if let Some(name) = item.anomaly_type.filter(|_| counted) {
            replay.evaluation.add_anomaly_type(item.event.time, name);
        }
        Ok(())
    })?;
    replay.totals.rejected += read.rejected_count();
    replay.end(PARTITION)?;
    replay.finish()
}

fn replay_topic(
    config: &Config,
    args: &ReplayArgs,
    bundle: Arc<Bundle>,
    since: Option<EventTime>,
) -> anyhow::Result<(Evaluation, RunTotals)> {
    if since.is_some() {
        return Err(ConfigError::from("--since goes with --input only".to_owned()).into());
    }
    let reader = TopicReader::open(&config.kafka, &config.kafka.input_topic)?;
    let mut replay = Replay::new(config, args, bundle, reader.partitions().len())?;
    for span in reader.partitions() {
        replay.start(span.partition, false);
    }
    let bar = CountBar::new(&config.kafka.input_topic, reader.records_max());
    let mut failure = None;
    reader.read(&mut |event| {
        let outcome = match event {
            TopicEvent::Truncated { partition, next } => {
                tracing::warn!(partition, offset = next.0, "earlier records are gone");
                replay
                    .end(partition)
                    .map(|()| replay.start(partition, true))
            }
            TopicEvent::Record { partition, record } => {
                replay.totals.events += 1;
                match replay.pipelines.get_mut(&partition) {
                    Some(pipeline) => {
                        pipeline.record(&mut replay.shared, record, &mut replay.steps);
                        replay.take_steps().map(drop)
                    }
                    None => Ok(()),
                }
            }
            TopicEvent::Progress { passed } => {
                bar.set(passed);
                Ok(())
            }
            TopicEvent::PartitionEnd { partition } => replay.end(partition),
        };
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    drop(bar);
    if let Some(error) = failure {
        return Err(error);
    }
    // What could not be decoded is no event; what came late is one.
    replay.totals.events -= replay.totals.rejected;
    replay.finish()
}

//! How much of the broker's own speed is left when the whole job is done.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    consume::Drained,
    events::{Events, LINE_BYTES},
    fill::{self, Filling},
    peer,
    processor::{self, Processor, Setup, logguard},
    report::{self, Row},
    topic,
    usage::Usage,
};

/// Lines a second of event time: 200,000 a minute.
pub(crate) const RATE_PER_S: f64 = 200_000.0 / 60.0;
/// No drain takes longer.
const WITHIN: Duration = Duration::from_secs(600);

/// Where the services and programs are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Places {
    /// Bootstrap servers of an Apache Kafka.
    #[arg(long)]
    pub(crate) kafka_brokers: String,
    /// A PostgreSQL database that may be filled.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// The program to measure.
    #[arg(long, default_value = "target/release/logguard")]
    pub(crate) logguard: PathBuf,
    /// Where files go; deleted at the end. Default: a new directory for temporary files.
    #[arg(long)]
    pub(crate) work_dir: Option<PathBuf>,
    /// Write the figures as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// Flags of `drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    places: Places,
    /// Records in a topic.
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// Numbers of partitions.
    #[arg(long, value_delimiter = ',', default_value = "1,4,12")]
    partitions: Vec<i32>,
    /// Compression codecs.
    #[arg(long, value_delimiter = ',', default_value = "none,zstd")]
    codecs: Vec<String>,
    /// Runs of each program; the median is reported.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// A librdkafka property for the consumers and LogGuard, KEY=VALUE.
    #[arg(long = "kafka")]
    properties: Vec<String>,
    /// Classpath of the Kafka Streams peer (see `benches/peers/streams`).
    #[arg(long)]
    streams_classpath: Option<String>,
}

/// A directory to work in, with a model.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) setup: Setup,
    _dir: Option<tempfile::TempDir>,
}

impl Bench {
    /// Creates tables, and trains a model on a day of the simulator's lines.
    pub(crate) fn prepare(places: &Places) -> Result<Self> {
        let temporary = match &places.work_dir {
            None => Some(tempfile::tempdir()?),
            Some(_) => None,
        };
        let dir = match (&places.work_dir, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) => dir.path().to_owned(),
            (None, None) => std::env::temp_dir(),
        };
        std::fs::create_dir_all(&dir)?;
        let program = places.logguard.canonicalize().with_context(|| {
            let path = places.logguard.display();
            format!("{path} is not there; build it with `cargo build --release`")
        })?;
        logguard(&program, &["migrate"], &places.database_url)?;
        let setup = Setup {
            program,
            brokers: places.kafka_brokers.clone(),
            database_url: places.database_url.clone(),
            model: dir.join("model"),
            dir,
        };
        let events = Events {
            seed: 1,
            count: 864_000,
            rate_per_s: 10.0,
            anomaly_prob: 0.001,
            bytes: 0,
        };
        if !setup.model.exists() {
            train(&setup, &setup.model, events)?;
        }
        Ok(Self {
            setup,
            _dir: temporary,
        })
    }
}

/// Trains a model on the simulator's lines.
pub(crate) fn train(setup: &Setup, model: &Path, events: Events) -> Result<()> {
    let training = setup.dir.join("training.jsonl");
    events.write(&training)?;
    let arguments = [
        "train",
        "--input",
        &text(&training)?,
        "--model-dir",
        &text(model)?,
    ];
    logguard(&setup.program, &arguments, &setup.database_url)?;
    std::fs::remove_file(&training)?;
    Ok(())
}

/// Returns a path as text, for command lines.
pub(crate) fn text(path: &Path) -> Result<String> {
    let text = path.to_str().context("paths have to be UTF-8")?;
    Ok(text.to_owned())
}

/// Returns a name no topic had before.
pub(crate) fn fresh_topic(stem: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{stem}-{}", now.unwrap_or_default().as_millis())
}

/// Measures everything and prints a table.
pub(crate) fn drain(args: &DrainArgs) -> Result<()> {
    let bench = Bench::prepare(&args.places)?;
    let events = Events {
        seed: 7,
        count: args.events,
        rate_per_s: RATE_PER_S,
        anomaly_prob: 0.005,
        bytes: LINE_BYTES,
    };
    let file = bench.setup.dir.join("events.jsonl");
    eprintln!("writing {} events", args.events);
    let bytes = events.write(&file)?;
    eprintln!("{} bytes an event", bytes / args.events.max(1));
    let mut rows = Vec::new();
    for codec in &args.codecs {
        for &partitions in &args.partitions {
            measure_topic(args, &bench, (&file, codec, partitions), &mut rows)?;
            eprint!("{}", report::table(&rows));
            report::write_json(args.places.json.as_deref(), &rows)?;
        }
    }
    let parsing = rows.iter().find(|row| row.program.starts_with("(b)"));
    let parsing = parsing.map(|row: &Row| row.events_per_s);
    rows.push(measure_replay(args, &bench, &file, parsing)?);
    report::write_json(args.places.json.as_deref(), &rows)?;
    println!("{}", report::table(&rows));
    Ok(())
}

fn measure_topic(
    args: &DrainArgs,
    bench: &Bench,
    (file, codec, partitions): (&Path, &str, i32),
    rows: &mut Vec<Row>,
) -> Result<()> {
    let setup = &bench.setup;
    let topic = fresh_topic(&format!("drain-{partitions}-{codec}"));
    let filling = Filling {
        brokers: &setup.brokers,
        topic: &topic,
        partitions,
        codec,
    };
    eprintln!("filling {topic}");
    fill::fill(&filling, file)?;
    let input = format!("{partitions} partitions, {codec}");
    let properties: Vec<_> = args
        .properties
        .iter()
        .flat_map(|it| ["--kafka", it])
        .collect();
    // Interleaved, so that what disturbs the machine disturbs all of them.
    let mut runs: [Vec<Drained>; 4] = Default::default();
    for _ in 0..args.runs.max(1) {
        runs[0].push(bare(setup, &topic, args.events, ("nothing", &properties))?);
        runs[1].push(bare(setup, &topic, args.events, ("value", &properties))?);
        runs[2].push(run_logguard(setup, &topic, args.events, &properties)?);
        if let Some(classpath) = &args.streams_classpath {
            runs[3].push(peer::streams(setup, classpath, &topic, args.events)?);
        }
    }
    let names = [
        "(a) bare consumer",
        "(b) + serde_json Value",
        "(c) logguard run",
        "Kafka Streams count",
    ];
    let mut base = None;
    for (name, runs) in names
        .into_iter()
        .zip(runs)
        .filter(|(_, runs)| !runs.is_empty())
    {
        let row = row(&input, name, median(runs), base);
        base = base.or(Some(row.events_per_s));
        rows.push(row);
    }
    let (results, letters) = (
        processor::results_topic(&topic),
        processor::letters_topic(&topic),
    );
    topic::delete(&setup.brokers, &[&topic, &results, &letters])
}

/// Compares with `parsing`, the events/s of a consumer that only parses.
fn measure_replay(
    args: &DrainArgs,
    bench: &Bench,
    file: &Path,
    parsing: Option<f64>,
) -> Result<Row> {
    let setup = &bench.setup;
    let mut runs = Vec::new();
    for _ in 0..args.runs.max(1) {
        runs.push(replay(setup, &setup.model, file, args.events)?);
    }
    Ok(row("file", "(d) logguard replay", median(runs), parsing))
}

/// Replays a file of so many events.
pub(crate) fn replay(setup: &Setup, model: &Path, file: &Path, events: u64) -> Result<Drained> {
    let (input, model) = (text(file)?, text(model)?);
    let arguments = ["replay", "--input", &input, "--model-dir", &model, "--json"];
    watch(&setup.program, &arguments, events)
}

/// Runs a program to its end, reading its use of resources as it goes.
fn watch(program: &Path, arguments: &[&str], events: u64) -> Result<Drained> {
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut usage = Usage::default();
    let status = loop {
        // Of a process that has ended only its status is left: the last reading counts.
        if let Ok(now) = Usage::of(child.id())
            && now.rss_peak_mib > 0.0
        {
            usage = now;
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    ensure!(status.success(), "{arguments:?} ended with {status}");
    Ok(Drained {
        events,
        seconds: started.elapsed().as_secs_f64(),
        usage,
    })
}

fn bare(
    setup: &Setup,
    topic: &str,
    events: u64,
    (parse, properties): (&str, &[&str]),
) -> Result<Drained> {
    let output = Command::new(std::env::current_exe()?)
        .args([
            "consume",
            "--kafka-brokers",
            &setup.brokers,
            "--topic",
            topic,
        ])
        .args(["--events", &events.to_string(), "--parse", parse])
        .args(properties)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the bare consumer failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Drains the topic with a processor: from its first record to its last.
pub(crate) fn run_logguard(
    setup: &Setup,
    topic: &str,
    events: u64,
    arguments: &[&str],
) -> Result<Drained> {
    let (results, letters) = (
        processor::results_topic(topic),
        processor::letters_topic(topic),
    );
    topic::create(&setup.brokers, &results, 1)?;
    topic::create(&setup.brokers, &letters, 1)?;
    // A group of its own for every run, so that each begins at the beginning.
    let group = fresh_topic("bench");
    let arguments = [&["--consumer-group", &group], arguments].concat();
    let mut processor = Processor::start(setup, topic, &arguments)?;
    let first = processor.wait_for("the first record", WITHIN, |now| {
        now.get("source_records_total") > 0.0
    })?;
    let (started, before) = (Instant::now(), first.get("source_records_total"));
    #[allow(clippy::cast_precision_loss, reason = "millions")]
    let total = events as f64;
    processor.wait_for("the last record", WITHIN, |now| {
        now.get("source_records_total") >= total
    })?;
    let seconds = started.elapsed().as_secs_f64() * total / (total - before).max(1.0);
    processor.wait_for("every row written", WITHIN, |now| {
        now.get("sink_pending") == 0.0
    })?;
    let usage = processor.usage()?;
    processor.stop()?;
    Ok(Drained {
        events,
        seconds,
        usage,
    })
}

/// Returns the run of median speed.
pub(crate) fn median(mut runs: Vec<Drained>) -> Drained {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    runs.get(runs.len() / 2).copied().unwrap_or_default()
}

/// Returns the row of a run; `base` is the events/s it is compared with.
pub(crate) fn row(input: &str, program: &str, run: Drained, base: Option<f64>) -> Row {
    #[allow(clippy::cast_precision_loss, reason = "millions")]
    let events = run.events as f64;
    let events_per_s = events / run.seconds.max(1e-9);
    Row {
        input: input.to_owned(),
        program: program.to_owned(),
        events_per_s,
        cpu_s_per_million: run.usage.cpu_s / (events / 1e6),
        rss_peak_mib: run.usage.rss_peak_mib,
        ratio: base.map(|base| events_per_s / base),
    }
}

//! How soon results are seen: a topic is written in real time, while one thread asks the database for
//! new rows and another reads the alarm file.
//!
//! A row's latency counts from the moment the first record that passes its window's end (lateness
//! included) was handed to the producer, so producing, the broker and fetching are in it. Bursts of
//! an unknown error line are written now and then; theirs counts from the first line to the alarm's.

use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use producer_sim::{
    generator::{Generator, Scenario, Settings},
    output::{Stamp, encode},
};
use rdkafka::producer::BaseProducer;
use serde::Serialize;

use crate::{
    drain::{Bench, Places, fresh_topic},
    fill,
    processor::{self, Processor},
    report, topic,
};

/// How often the database and the alarm file are looked at: what is measured is coarser by as much.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines of one burst, 100 ms apart.
const BURST_LINES: i64 = 40;
/// Time between bursts.
const BURST_EVERY_US: i64 = 47_000_000;
/// Windows and lateness of the processor, in milliseconds.
const WINDOW_MS: i64 = 30_000;
const LATENESS_MS: i64 = 2_000;
/// Time the last rows get to be seen.
const REST: Duration = Duration::from_secs(2);

/// Flags of `latency`.
#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    places: Places,
    /// Events a minute, over all partitions.
    #[arg(long, default_value_t = 200_000)]
    per_minute: u32,
    /// How long to write, in seconds.
    #[arg(long, default_value_t = 330)]
    seconds: u64,
    /// Partitions; each gives a row per window.
    #[arg(long, default_value_t = 12)]
    partitions: i32,
    /// Further arguments of the processor, such as `--early-alarms=off`.
    #[arg(long, allow_hyphen_values = true)]
    argument: Vec<String>,
}

/// A row or an alarm: partition, and end of its window in milliseconds.
type Key = (i32, i64);
type Seen = HashMap<Key, Instant>;

/// What was written when.
#[derive(Debug, Default)]
struct Written {
    /// When a partition's watermark was sent past a window's end.
    passed: Seen,
    /// First line of the first burst in a window, and where in the window it stood.
    bursts: Seen,
    events: u64,
}

/// Latencies in milliseconds.
#[derive(Debug, Serialize)]
struct Quantiles {
    what: &'static str,
    samples: usize,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Quantiles {
    fn of(what: &'static str, mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let last = ms.len().saturating_sub(1);
            ms.get((ms.len() * percent / 100).min(last))
                .copied()
                .unwrap_or(f64::NAN)
        };
        Self {
            what,
            samples: ms.len(),
            p50_ms: at(50),
            p95_ms: at(95),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }
}

/// Measures and prints a table.
pub(crate) fn latency(args: &LatencyArgs) -> Result<()> {
    let bench = Bench::prepare(&args.places)?;
    let setup = &bench.setup;
    let topic = fresh_topic("latency");
    let (results, letters) = (
        processor::results_topic(&topic),
        processor::letters_topic(&topic),
    );
    topic::create(&setup.brokers, &topic, args.partitions)?;
    topic::create(&setup.brokers, &results, 1)?;
    topic::create(&setup.brokers, &letters, 1)?;
    let mut arguments = vec!["--consumer-group", &topic];
    arguments.extend(args.argument.iter().map(String::as_str));
    let mut processor = Processor::start(setup, &topic, &arguments)?;
    let all = f64::from(args.partitions);
    processor.wait_for("its partitions", Duration::from_secs(60), |now| {
        now.get("source_partitions_assigned") >= all
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    let rows = watch_rows(setup.database_url.clone(), topic.clone(), Arc::clone(&stop));
    let alarms = watch_alarms(processor.alarms.clone(), Arc::clone(&stop));
    let before = processor.usage()?;
    let written = write(args, &fill::producer(&setup.brokers, "none", 2)?, &topic)?;
    std::thread::sleep(REST);
    stop.store(true, Ordering::Relaxed);
    let used = processor.usage()?.since(before);
    let joined = |thread: JoinHandle<Result<Seen>>| {
        thread
            .join()
            .map_err(|_| anyhow!("a watching thread panicked"))?
    };
    let (rows, alarms) = (joined(rows)?, joined(alarms)?);
    processor.stop()?;
    topic::delete(&setup.brokers, &[&topic, &results, &letters])?;
    let quantiles = [
        Quantiles::of("end passed → row", between(&written.passed, &rows)),
        Quantiles::of("end passed → alarm line", between(&written.passed, &alarms)),
        Quantiles::of(
            "burst's first line → alarm line",
            between(&written.bursts, &alarms),
        ),
    ];
    print_table(&quantiles);
    let cores = used.cpu_s / args.seconds.max(1) as f64;
    println!(
        "\n{} events, {:.1} % of a core, {:.0} MiB at most",
        written.events,
        cores * 100.0,
        used.rss_peak_mib
    );
    report::write_json(args.places.json.as_deref(), &quantiles)
}

fn print_table(quantiles: &[Quantiles]) {
    println!(
        "| from → to | samples | p50 ms | p95 ms | p99 ms | largest ms |\n|---|---:|---:|---:|---:|---:|"
    );
    for it in quantiles {
        let Quantiles {
            what,
            samples,
            p50_ms,
            p95_ms,
            p99_ms,
            max_ms,
        } = it;
        println!("| {what} | {samples} | {p50_ms:.0} | {p95_ms:.0} | {p99_ms:.0} | {max_ms:.0} |");
    }
}

/// Returns the milliseconds from one to the other for all that have both; what was seen before it was
/// due (an early alarm) counts below zero.
fn between(from: &Seen, to: &Seen) -> Vec<f64> {
    let ms = |(key, seen): (&Key, &Instant)| {
        let from = from.get(key)?;
        Some(match seen.checked_duration_since(*from) {
            Some(later) => later.as_secs_f64() * 1e3,
            None => from.duration_since(*seen).as_secs_f64() * -1e3,
        })
    };
    to.iter().filter_map(ms).collect()
}

fn now_us() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_micros())?)
}

/// Writes events as their time comes, dealt out to the partitions in turn, with bursts in between.
fn write(args: &LatencyArgs, producer: &BaseProducer, topic: &str) -> Result<Written> {
    let start_us = now_us()?;
    let mut generator = Generator::new(Settings {
        seed: 11,
        rate_per_s: f64::from(args.per_minute) / 60.0,
        anomaly_prob: 0.0,
        start_us,
        first_incident_after_us: None,
        scenario: Scenario::Standard,
    });
    let (mut written, mut stamp, mut line) = (Written::default(), Stamp::default(), Vec::new());
    let end_us = start_us + i64::try_from(args.seconds)? * 1_000_000;
    let mut burst_us = start_us + BURST_EVERY_US;
    loop {
        let event = generator.advance();
        while event.time_us > now_us()? {
            producer.poll(Duration::from_millis(1));
        }
        if event.time_us > end_us {
            break;
        }
        let partition =
            i32::try_from(written.events % u64::from(args.partitions.unsigned_abs().max(1)))?;
        while burst_us <= event.time_us {
            let burst = (burst_us - start_us) / BURST_EVERY_US;
            let partition = i32::try_from(burst)? % args.partitions;
            let at = (burst_us - start_us) % BURST_EVERY_US;
            if at == 0 {
                note_burst(&mut written.bursts, partition, burst_us / 1_000);
            }
            send_burst_line(producer, (topic, partition), (burst, burst_us), &mut stamp)?;
            let last = at >= (BURST_LINES - 1) * 100_000;
            burst_us = if last {
                start_us + (burst + 1) * BURST_EVERY_US
            } else {
                burst_us + 100_000
            };
        }
        line.clear();
        encode::json(event, &mut stamp, &mut line)?;
        note_passed(&mut written.passed, partition, event.time_us / 1_000);
        fill::send(producer, topic, partition, &line)?;
        written.events += 1;
    }
    fill::flush(producer)?;
    Ok(written)
}

fn note_passed(passed: &mut Seen, partition: i32, event_ms: i64) {
    let end = (event_ms - LATENESS_MS).div_euclid(WINDOW_MS) * WINDOW_MS;
    passed.entry((partition, end)).or_insert_with(Instant::now);
}

fn note_burst(bursts: &mut Seen, partition: i32, event_ms: i64) {
    let end = (event_ms.div_euclid(WINDOW_MS) + 1) * WINDOW_MS;
    bursts.insert((partition, end), Instant::now());
}

/// Sends one line of a burst: of a kind that no model knows.
fn send_burst_line(
    producer: &BaseProducer,
    (topic, partition): (&str, i32),
    (burst, at_us): (i64, i64),
    stamp: &mut Stamp,
) -> Result<()> {
    let word: String = burst
        .to_string()
        .bytes()
        .map(|digit| char::from(digit - b'0' + b'k'))
        .collect();
    let line = format!(
        "{{\"timestamp\":\"{}\",\"level\":\"ERROR\",\"service\":\"order-service\",\
         \"message\":\"vortex {word} collapsed while quenching manifold\"}}",
        stamp.format(at_us)
    );
    fill::send(producer, topic, partition, line.as_bytes())
}

fn watch_rows(url: String, topic: String, stop: Arc<AtomicBool>) -> JoinHandle<Result<Seen>> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            let connection = tokio::spawn(connection);
            let ask = "select partition, (extract(epoch from window_end) * 1000)::int8 \
                       from anomaly_results where topic = $1 and not provisional and window_end > $2";
            let ask = client.prepare(ask).await?;
            let (mut seen, mut since) = (Seen::new(), SystemTime::now());
            while !stop.load(Ordering::Relaxed) {
                for row in client.query(&ask, &[&topic, &since]).await? {
                    seen.entry((row.get(0), row.get(1))).or_insert_with(Instant::now);
                }
                // Rows of one window come one by one; those of the last two are asked for again.
                let back = Duration::from_millis(2 * WINDOW_MS.unsigned_abs());
                since = since.max(SystemTime::now() - back);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            connection.abort();
            Ok(seen)
        })
    })
}

fn watch_alarms(path: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<Result<Seen>> {
    std::thread::spawn(move || {
        let (mut seen, mut read) = (Seen::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
            let text = read_on(&path, &mut read)?;
            for key in text.lines().filter_map(alarm_key) {
                seen.entry(key).or_insert_with(Instant::now);
            }
        }
        Ok(seen)
    })
}

/// Returns what the file has grown by, whole lines only.
fn read_on(path: &Path, read: &mut u64) -> Result<String> {
    let Ok(mut file) = std::fs::File::open(path) else {
        return Ok(String::new());
    };
    let mut text = String::new();
    file.seek(SeekFrom::Start(*read))?;
    file.read_to_string(&mut text)
        .context("the alarm file is not text")?;
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    *read += text.len() as u64;
    Ok(text)
}

/// Returns the key of an alarm line, `… | Window: <from> to <to> | … | Stream: <topic>/<partition>`.
fn alarm_key(line: &str) -> Option<Key> {
    let field = |name: &str| line.split(" | ").find_map(|field| field.strip_prefix(name));
    let (_, end) = field("Window: ")?.split_once(" to ")?;
    let (_, partition) = field("Stream: ")?.rsplit_once('/')?;
    let end = logguard::decode::parse_timestamp(end)?;
    Some((partition.trim().parse().ok()?, end.as_millis()))
}

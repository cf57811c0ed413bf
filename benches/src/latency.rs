//! How soon results are seen while a topic is written in real time, whether the processor keeps up with
//! the rate, and whether its memory stays flat.
//!
//! A row's latency counts from the moment the first record that passes its window's end (lateness
//! included) was handed to the producer, so producing, the broker and fetching are in it. Bursts of
//! an unknown error line are written now and then; theirs counts from the first line to the alarm's.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    drain::{Bench, Places, fresh_topic},
    memory::{Memory, Quarters, Sample},
    processor::{self, Processor, Setup},
    realtime::{self, Key, Load, Seen},
    report, topic,
    watch::Watchers,
};

/// Time the last rows get to be seen.
const REST: Duration = Duration::from_secs(2);
/// Who is farther behind when writing ends has not kept up.
const BEHIND_MAX_S: f64 = 1.0;

/// Flags of `latency`.
#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    load: Load,
    /// Further arguments of the processor, such as `--early-alarms=off`.
    #[arg(long, allow_hyphen_values = true)]
    argument: Vec<String>,
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

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    latencies: [Quantiles; 3],
    /// Windows that ended and of which no row was seen: they are missing among the latencies.
    windows_unseen: usize,
    /// Resident memory of the processor while the topic was written.
    memory_mib: Vec<Sample>,
    memory: Option<Quarters>,
    rss_peak_mib: f64,
    /// Of one core, while the topic was written.
    cpu_share: f64,
    events: u64,
    events_per_s: f64,
    events_per_s_asked: f64,
    /// How far the writer was behind its clock when it ended.
    writer_behind_s: f64,
    /// Records that the processor had not read when the last was written.
    records_unread: f64,
    /// Those of them that the broker had deleted.
    records_deleted_unread: f64,
    /// How long it took to write as many as were not read.
    processor_behind_s: f64,
}

/// Measures and prints what was measured.
pub(crate) fn latency(args: &LatencyArgs) -> Result<()> {
    let bench = Bench::prepare(&args.places)?;
    let brokers = &bench.setup.brokers;
    let topic = fresh_topic("latency");
    let (results, letters) = (
        processor::results_topic(&topic),
        processor::letters_topic(&topic),
    );
    topic::create_bounded(brokers, &topic, args.load.partitions)?;
    topic::create(brokers, &results, 1)?;
    topic::create(brokers, &letters, 1)?;
    let measured = measure(args, &bench.setup, &topic);
    // Of a run that failed as well: it may have written gigabytes.
    let deleted = topic::delete(brokers, &[&topic, &results, &letters]);
    let measured = measured?;
    measured.print();
    report::write_json(args.places.json.as_deref(), &measured)?;
    deleted
}

fn measure(args: &LatencyArgs, setup: &Setup, topic: &str) -> Result<Measured> {
    let mut arguments = vec!["--consumer-group", topic];
    arguments.extend(args.argument.iter().map(String::as_str));
    let mut processor = Processor::start(setup, topic, &arguments)?;
    let all = f64::from(args.load.partitions);
    processor.wait_for("its partitions", Duration::from_secs(60), |now| {
        now.get("source_partitions_assigned") >= all
    })?;
    let watchers = Watchers::start(setup, topic, &processor);
    let (before, mut memory) = (processor.usage()?, Memory::of(processor.pid()));
    let written = realtime::write(&args.load, &setup.brokers, topic, || memory.sample_if_due())?;
    let (now, used) = (processor.metrics()?, processor.usage()?.since(before));
    std::thread::sleep(REST);
    let (rows, alarms) = watchers.finish()?;
    processor.stop()?;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (events, records) = (written.events as f64, written.records as f64);
    let records_unread = (records - now.get("source_records_total")).max(0.0);
    let samples = memory.into_samples();
    let unseen = written.passed.keys().filter(|key| !rows.contains_key(*key));
    Ok(Measured {
        latencies: [
            Quantiles::of("end passed → row", between(&written.passed, &rows)),
            Quantiles::of("end passed → alarm line", between(&written.passed, &alarms)),
            Quantiles::of(
                "burst's first line → alarm line",
                between(&written.bursts, &alarms),
            ),
        ],
        windows_unseen: unseen.count(),
        memory: Quarters::of(&samples),
        memory_mib: samples,
        rss_peak_mib: used.rss_peak_mib,
        cpu_share: used.cpu_s / written.seconds,
        events: written.events,
        events_per_s: events / written.seconds,
        events_per_s_asked: args.load.rate_per_s(),
        writer_behind_s: written.behind_s,
        records_unread,
        records_deleted_unread: now.get("source_deleted_unread_records_total"),
        processor_behind_s: records_unread * written.seconds / records.max(1.0),
    })
}

impl Measured {
    fn print(&self) {
        print_table(&self.latencies);
        if self.windows_unseen > 0 {
            println!(
                "\n{} windows ended and no row of theirs was seen: they are missing above",
                self.windows_unseen
            );
        }
        println!(
            "\n{} events, {:.1} % of a core, {:.0} MiB at most",
            self.events,
            self.cpu_share * 100.0,
            self.rss_peak_mib
        );
        println!(
            "writer reached {:.0} events/s of {:.0} asked for, {:.2} s behind at the end: {}",
            self.events_per_s,
            self.events_per_s_asked,
            self.writer_behind_s,
            kept_up(self.writer_behind_s)
        );
        println!(
            "processor had {:.0} records to read when writing ended ({:.0} of them deleted), {:.2} s \
             behind: {}",
            self.records_unread,
            self.records_deleted_unread,
            self.processor_behind_s,
            kept_up(self.processor_behind_s)
        );
        self.print_memory();
    }

    fn print_memory(&self) {
        let Some(memory) = self.memory else {
            println!("memory over time: too few samples after the first minute");
            return;
        };
        let [first, second, third, last] = memory.medians_mib;
        println!(
            "memory after the first minute, medians of its quarters: {first:.1}, {second:.1}, \
             {third:.1}, {last:.1} MiB; largest {:.1} MiB",
            memory.max_mib
        );
    }
}

fn kept_up(behind_s: f64) -> &'static str {
    if behind_s > BEHIND_MAX_S {
        "did not keep up"
    } else {
        "kept up"
    }
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

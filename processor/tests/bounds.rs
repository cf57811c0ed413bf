//! Memory stays bounded and work stays linear however many templates and services there are: the
//! real program over a stream in which no two lines are of one template, and which falls silent
//! until one line closes the windows of all streams at once.
//!
//! Checked is what cannot depend on the machine's speed: the peak of the memory, and that every
//! line was counted. How fast it went is printed, beside the same number of ordinary lines.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test program"
)]

#[path = "common/model.rs"]
mod model;
#[path = "common/program.rs"]
mod program;

use std::{
    fs,
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use logguard::window::{GroupBy, STREAMS_MAX, WindowConfig};
use serde_json::Value;

/// 2025-12-24T00:00:00Z, in milliseconds since the epoch.
const START_MS: u64 = 1_766_534_400_000;
const WINDOW_MS: u64 = 30_000;
/// Memory a processor may take.
const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// How often the peak is looked at; it only rises.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Letters that make words no mask takes for an identifier or a hexadecimal number.
const LETTERS: &[u8; 16] = b"ghijklmnopqrstuv";

/// Lines of the flood into one stream, each of another template.
const FLOOD_LINES: u64 = 5_000_000;
/// Lines of the flood into streams of many services: enough that each of their tables is full.
const SERVICES_FLOOD_LINES: u64 = 1_200_000;
const FLOOD_SERVICES: u64 = 100_000;
/// Lines of the ordinary stream that the flood's speed is compared with.
const ORDINARY_LINES: u64 = 100_000;

/// A stream of made-up lines.
#[derive(Clone, Copy, Debug)]
struct Stream {
    lines: u64,
    templates: u64,
    services: u64,
    /// Windows that the lines fill evenly.
    windows: u64,
    /// Windows of silence before the last of those: its first line closes them all at once.
    silent: u64,
}

const FLOOD: Stream = Stream {
    lines: FLOOD_LINES,
    templates: FLOOD_LINES,
    services: FLOOD_SERVICES,
    windows: 8,
    silent: 12,
};
const SERVICES_FLOOD: Stream = Stream {
    lines: SERVICES_FLOOD_LINES,
    templates: SERVICES_FLOOD_LINES,
    ..FLOOD
};
const ORDINARY: Stream = Stream {
    lines: ORDINARY_LINES,
    templates: 40,
    services: 20,
    windows: 8,
    silent: 0,
};

impl Stream {
    /// Writes every line: a word that numbers the template, a service, a level, a time.
    fn write(self, out: &mut impl Write) -> std::io::Result<()> {
        for line in 0..self.lines {
            let within_ms = line * self.windows * WINDOW_MS / self.lines;
            let is_last = within_ms >= (self.windows - 1) * WINDOW_MS;
            let silent = if is_last { self.silent } else { 0 };
            let time_ms = START_MS + within_ms + silent * WINDOW_MS;
            let level = if line % 50 == 0 { "ERROR" } else { "INFO" };
            let service = line % self.services;
            let word = word(line % self.templates);
            let word = std::str::from_utf8(&word).unwrap();
            writeln!(
                out,
                r#"{{"timestamp":{time_ms},"level":"{level}","service":"service-{service}","message":"request {word} ended in 17 ms"}}"#
            )?;
        }
        Ok(())
    }
}

/// Returns a word that stands for `number`.
fn word(mut number: u64) -> [u8; 7] {
    [(); 7].map(|()| {
        let letter = LETTERS[usize::try_from(number % 16).unwrap()];
        number /= 16;
        letter
    })
}

/// What a replay came to.
#[derive(Debug)]
struct Outcome {
    report: Value,
    peak_bytes: u64,
    cpu_s: f64,
}

impl Outcome {
    fn number(&self, field: &str) -> u64 {
        self.report[field].as_u64().unwrap()
    }
}

fn replay(stream: Stream, group_by: &str) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let window = WindowConfig {
        length_ms: WINDOW_MS.cast_signed(),
        lateness_ms: 2_000,
        group_by: GroupBy::Partition,
    };
    let model = dir.path().join("model");
    model::bundle(window).save(&model).unwrap();
    let mut child = program::logguard(dir.path())
        .args(["replay", "--input", "-", "--json", "--model-dir", "model"])
        .args(["--group-by", group_by])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writer = thread::spawn(move || {
        let mut out = BufWriter::with_capacity(1 << 20, stdin);
        stream.write(&mut out).unwrap();
        out.flush().unwrap();
    });
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let (mut peak_bytes, mut cpu_s) = (0, 0.0);
    let exit = loop {
        if let Some(usage) = usage(&proc) {
            (peak_bytes, cpu_s) = usage;
        }
        if let Some(exit) = child.try_wait().unwrap() {
            break exit;
        }
        thread::sleep(LOOK_EVERY);
    };
    assert!(exit.success(), "{exit}");
    writer.join().unwrap();
    // The report is shorter than a pipe holds, so the program never waits for its reader.
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    Outcome {
        report: serde_json::from_str(&text).unwrap(),
        peak_bytes,
        cpu_s,
    }
}

/// The highest resident size so far and the CPU time; `None` once the program has ended.
fn usage(proc: &Path) -> Option<(u64, f64)> {
    /// Units of time in `/proc/*/stat`: a hundredth of a second on every Linux.
    const TICKS_PER_S: f64 = 100.0;
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|it| it.parse::<f64>().ok()).sum();
    Some((kib * 1024, ticks / TICKS_PER_S))
}

fn stays_bounded(group_by: &str, stream: Stream, streams: std::ops::RangeInclusive<u64>) {
    let ordinary = replay(ORDINARY, group_by);
    let flood = replay(stream, group_by);
    #[allow(clippy::cast_precision_loss, reason = "millions")]
    let per_second = |outcome: &Outcome, stream: Stream| stream.lines as f64 / outcome.cpu_s;
    let (fast, slow) = (per_second(&ordinary, ORDINARY), per_second(&flood, stream));
    eprintln!(
        "{group_by}: {slow:.0} lines per CPU second at {} MiB; ordinary lines {fast:.0} at {} MiB",
        flood.peak_bytes >> 20,
        ordinary.peak_bytes >> 20
    );
    assert!(
        flood.peak_bytes < MEMORY_BYTES_MAX,
        "{} bytes",
        flood.peak_bytes
    );
    assert_eq!(flood.number("events"), stream.lines);
    assert_eq!((flood.number("rejected"), flood.number("late")), (0, 0));
    assert!(
        streams.contains(&flood.number("streams")),
        "{}",
        flood.report
    );
}

#[test]
fn five_million_templates_in_a_partition_take_bounded_memory() {
    stays_bounded("partition", FLOOD, 1..=1);
}

#[test]
fn so_do_a_hundred_thousand_services_with_windows_of_their_own() {
    let most = u64::try_from(STREAMS_MAX).unwrap() + 1;
    stays_bounded("service", SERVICES_FLOOD, most..=most);
}

//! What grows with what: events/s, CPU and memory against the number of streams, templates, core
//! points, services and partitions, and against the size of messages.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    drain::{Bench, Places, RATE_PER_S, fresh_topic, replay, row, run_logguard, train},
    events::{Events, LINE_BYTES, START_US, pad},
    fill::{self, Filling},
    processor, report, topic,
};

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dimension {
    /// Services that have windows of their own.
    Streams,
    /// Kinds of message.
    Templates,
    /// Core points of the model, by the span it is trained on.
    CorePoints,
    /// Services within one stream.
    Services,
    Partitions,
    /// Bytes of a record.
    Bytes,
}

/// Flags of `growth`.
#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    #[command(flatten)]
    places: Places,
    /// Records of each measurement.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// What to vary. Default: everything.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Dimension>,
}

/// The lines of one measurement: `templates` kinds from `services` services in turn.
#[derive(Clone, Copy, Debug)]
struct Lines {
    services: u64,
    templates: u64,
    bytes: usize,
    partitions: i32,
    by_service: bool,
}

const USUAL: Lines = Lines {
    services: 7,
    templates: 100,
    bytes: LINE_BYTES,
    partitions: 1,
    by_service: false,
};

/// Measures everything and prints a table.
pub(crate) fn growth(args: &GrowthArgs) -> Result<()> {
    let bench = Bench::prepare(&args.places)?;
    let mut rows = Vec::new();
    let asked = |dimension| args.only.is_empty() || args.only.contains(&dimension);
    for (dimension, input, lines) in variations() {
        if asked(dimension) {
            rows.push(measure(args, &bench, &input, lines)?);
            eprintln!("{}", report::table(&rows[rows.len() - 1..]));
        }
    }
    if asked(Dimension::CorePoints) {
        core_points(&bench, &mut rows)?;
    }
    println!("{}", report::table(&rows));
    report::write_json(args.places.json.as_deref(), &rows)
}

fn variations() -> Vec<(Dimension, String, Lines)> {
    let mut all = Vec::new();
    for services in [1, 10, 100, 1_000, 10_000] {
        let lines = Lines {
            services,
            by_service: true,
            ..USUAL
        };
        all.push((Dimension::Streams, format!("{services} streams"), lines));
    }
    for templates in [100, 1_000, 10_000, 100_000] {
        let lines = Lines { templates, ..USUAL };
        all.push((
            Dimension::Templates,
            format!("{templates} templates"),
            lines,
        ));
    }
    for services in [1, 10, 100, 1_000] {
        let lines = Lines { services, ..USUAL };
        all.push((Dimension::Services, format!("{services} services"), lines));
    }
    for partitions in [1, 4, 12, 48] {
        let lines = Lines {
            partitions,
            ..USUAL
        };
        all.push((
            Dimension::Partitions,
            format!("{partitions} partitions"),
            lines,
        ));
    }
    for bytes in [100, 220, 1_000, 10_000] {
        let lines = Lines { bytes, ..USUAL };
        all.push((Dimension::Bytes, format!("{bytes} bytes"), lines));
    }
    all
}

fn measure(args: &GrowthArgs, bench: &Bench, input: &str, lines: Lines) -> Result<report::Row> {
    let setup = &bench.setup;
    let topic = fresh_topic("growth");
    let file = setup.dir.join("growth.jsonl");
    // Of large records fewer, so that none of the topics is larger than the machine's memory.
    let events = args.events.min(args.events * 1_000 / lines.bytes as u64);
    lines.write(events, &file)?;
    let filling = Filling {
        brokers: &setup.brokers,
        topic: &topic,
        partitions: lines.partitions,
        codec: "none",
    };
    fill::fill(&filling, &file)?;
    std::fs::remove_file(&file)?;
    let by_service: &[&str] = if lines.by_service {
        &["--group-by", "service"]
    } else {
        &[]
    };
    let drained = run_logguard(setup, &topic, events, by_service)?;
    let (results, letters) = (
        processor::results_topic(&topic),
        processor::letters_topic(&topic),
    );
    topic::delete(&setup.brokers, &[&topic, &results, &letters])?;
    Ok(row(input, "logguard run", drained, None))
}

impl Lines {
    fn write(self, events: u64, path: &Path) -> Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let (mut line, mut stamp) = (Vec::new(), producer_sim::output::Stamp::default());
        for number in 0..events {
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "minutes of microseconds"
            )]
            let at_us = START_US + (number as f64 * 1e6 / RATE_PER_S) as i64;
            // Neither the same services nor the same templates side by side.
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            line.clear();
            write!(
                line,
                "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"service\":\"s{}\",\"message\":\"worker {} of {} finished part {} in {} ms\"}}",
                stamp.format(at_us),
                ["INFO", "INFO", "INFO", "DEBUG", "WARN"][(mixed % 5) as usize],
                mixed % self.services,
                word(mixed / 7 % self.templates),
                word(mixed / 7 % self.templates / 26),
                number % 10_000,
                mixed % 900,
            )?;
            pad(&mut line, self.bytes);
            line.push(b'\n');
            out.write_all(&line)?;
        }
        out.flush()?;
        Ok(())
    }
}

/// A word for a number, in letters, so that no mask takes it for a variable.
fn word(mut number: u64) -> String {
    let mut word = String::from("w");
    loop {
        word.push(char::from(b'g' + (number % 19) as u8));
        number /= 19;
        if number == 0 {
            return word;
        }
    }
}

/// Models of different spans have different numbers of core points; the same quiet file through each.
fn core_points(bench: &Bench, rows: &mut Vec<report::Row>) -> Result<()> {
    let setup = &bench.setup;
    let file = setup.dir.join("core-points.jsonl");
    let events = Events {
        seed: 3,
        count: 200_000,
        rate_per_s: 1.0,
        anomaly_prob: 0.001,
        bytes: 0,
    };
    events.write(&file)?;
    for hours in [2_u32, 12, 48, 96] {
        let model = setup.dir.join(format!("model-{hours}h"));
        train(
            setup,
            &model,
            Events {
                count: u64::from(hours) * 3_600,
                seed: 1,
                ..events
            },
        )?;
        let drained = replay(setup, &model, &file, events.count)?;
        let input = format!("{} core points, 6,667 windows of 30 lines", points(&model)?);
        rows.push(row(&input, "logguard replay", drained, None));
        eprintln!("{}", report::table(&rows[rows.len() - 1..]));
    }
    std::fs::remove_file(&file)?;
    Ok(())
}

/// Counts the core points of a model.
fn points(model: &Path) -> Result<usize> {
    let bundle: serde_json::Value = serde_json::from_reader(File::open(model.join("model.json"))?)?;
    Ok(find(&bundle, "core").unwrap_or(0))
}

/// Returns the length of the array under `name`, wherever it stands.
fn find(value: &serde_json::Value, name: &str) -> Option<usize> {
    match value {
        serde_json::Value::Object(members) => members.iter().find_map(|(key, value)| match value {
            serde_json::Value::Array(items) if key == name => Some(items.len()),
            _ => find(value, name),
        }),
        _ => None,
    }
}

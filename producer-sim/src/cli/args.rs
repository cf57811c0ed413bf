//! The flags as typed, with their help.

use std::{net::SocketAddr, path::PathBuf};

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::broker::Topic;

const EXAMPLES: &str = "\
Examples:
  producer-sim broker                          hold a broker at 127.0.0.1:9092
  producer-sim --rate 100                      100 lines a second to topic log-events
  producer-sim --rate 50 --first-incident-after 20s --truth truth.jsonl
  producer-sim generate --days 9 --out train.jsonl.gz

Exit codes: 0 done, 1 a file could not be written, 2 wrong usage, 3 a setting was refused,
4 Kafka, the topic or the address to listen on is not to be had, or events were not acknowledged.";

const GENERATE_EXAMPLES: &str = "\
Examples:
  producer-sim generate --seed 42 --days 9 --out train.jsonl
  producer-sim generate --seed 7 --days 1 --rate 20 --out test.csv.gz --truth truth.jsonl
  producer-sim generate --hard --rate medium --seed 1 --days 9 --out hard.jsonl.zst --truth t.jsonl
  producer-sim generate --days 1 --out - | head";

const BROKER_EXAMPLES: &str = "\
Examples:
  producer-sim broker
  producer-sim broker --listen 127.0.0.1:19092 --topic log-events:8 --topic anomaly-results:1

Data and committed offsets live in memory only: each partition holds its newest 5 MiB as sent
(compressed), or 100,000 batches; older records are dropped without a word. That is 23,000 log
lines sent one by one, up to 140,000 in large batches. For trying things out and for tests; not
for anything that must survive a restart.";

/// Writes realistic, labelled log events to Kafka or to a file, and holds the embedded broker.
///
/// Without a command it is `run`: lines of seven services to a Kafka topic, with an incident now and
/// then.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The command; `run` if there is none.
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Produce log events to Kafka until stopped (the default command).
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
    /// Write a labelled set of log events to a file; the same flags give the same bytes.
    #[command(after_help = GENERATE_EXAMPLES)]
    Generate(GenerateArgs),
    /// Hold a small in-memory Kafka broker on a fixed address, for trying things out.
    #[command(after_help = BROKER_EXAMPLES)]
    Broker(BrokerArgs),
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Normal lines per second, 0.1 to 200000; they arrive independently of each other (Poisson).
    /// Incidents add their lines on top.
    #[arg(long, default_value = "100", value_parser = rate, value_name = "LINES_PER_S")]
    pub(super) rate: f64,
    /// Chance that an incident starts within any 30 s; incidents last 20 to 120 s.
    #[arg(long, default_value = "0.005", value_parser = probability, value_name = "0..1")]
    pub(super) anomaly_prob: f64,
    /// Topic to produce to; it must exist.
    #[arg(long, default_value = "log-events")]
    pub(super) topic: String,
    /// Kafka bootstrap servers.
    #[arg(
        long,
        default_value = "localhost:9092",
        env = "KAFKA_BROKERS",
        value_name = "HOST:PORT,…"
    )]
    pub(super) kafka_brokers: String,
    /// Seed of all random numbers; drawn and logged if not given.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Record key: the service keeps its lines in one partition, none spreads them over all.
    #[arg(long, value_enum, default_value = "none")]
    pub(super) key: Key,
    /// Stop after this long, such as 90s, 5m or 2h.
    #[arg(long)]
    pub(super) duration: Option<humantime::Duration>,
    /// Stop after this many events.
    #[arg(long)]
    pub(super) events: Option<u64>,
    /// Force one extra incident this long after the start, such as 20s: for demonstrations and
    /// tests that should not wait for chance.
    #[arg(long, value_name = "TIME")]
    pub(super) first_incident_after: Option<humantime::Duration>,
    /// Write each incident's ground truth to this file, one JSON line when it is over: start, end,
    /// kind, is_anomaly, service (where it began), services, lines.
    #[arg(long, value_name = "FILE")]
    pub(super) truth: Option<PathBuf>,
    /// Further librdkafka producer property; may be given several times.
    #[arg(long = "kafka", value_name = "KEY=VALUE")]
    pub(super) properties: Vec<String>,
}

/// What the record key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Key {
    /// The service's name.
    Service,
    /// No key.
    None,
}

/// Flags of `generate`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("length").args(["days", "duration"]))]
pub(super) struct GenerateArgs {
    /// Seed of all random numbers.
    #[arg(long, default_value = "42")]
    pub(super) seed: u64,
    /// Length of the set in days; fractions are fine.
    #[arg(long, default_value = "9", value_parser = days)]
    pub(super) days: f64,
    /// Length of the set as a time, such as 90s or 36h, in place of --days.
    #[arg(long)]
    pub(super) duration: Option<humantime::Duration>,
    /// Normal lines per second, 0.1 to 200000; or low (0.5), medium (5), high (50).
    #[arg(long, default_value = "1", value_parser = named_rate, value_name = "LINES_PER_S")]
    pub(super) rate: f64,
    /// Chance that an incident starts within any 30 s.
    #[arg(long, default_value = "0.005", value_parser = probability, value_name = "0..1")]
    pub(super) anomaly_prob: f64,
    /// File to write: JSON lines, or CSV if it ends in .csv; .gz and .zst compress; - is stdout.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// Write the incidents' ground truth to this file, one JSON line each: start, end, kind,
    /// is_anomaly (0 for the harmless), service (where it began), services, lines.
    #[arg(long, value_name = "FILE")]
    pub(super) truth: Option<PathBuf>,
    /// Time of the first lines (RFC 3339).
    #[arg(long, default_value = "2025-01-06T00:00:00Z", value_name = "RFC3339")]
    pub(super) start: DateTime<Utc>,
    /// Force one extra incident this long after the start, such as 20s.
    #[arg(long, value_name = "TIME")]
    pub(super) first_incident_after: Option<humantime::Duration>,
    /// The harder set: a daily rhythm, heartbeats, a release and a promotion (both harmless), and
    /// incidents made only of lines that also occur normally, or of one single new line. Incidents
    /// do not overlap; ten minutes lie between them. A silent system writes no lines to label: judge
    /// by --truth.
    #[arg(long)]
    pub(super) hard: bool,
}

/// Flags of `broker`.
#[derive(Debug, Args)]
pub(super) struct BrokerArgs {
    /// Address to listen on, and the one clients are told to come back to; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:9092", value_parser = listen, value_name = "IP:PORT")]
    pub(super) listen: SocketAddr,
    /// Topic to create, with its partitions; may be given several times, in place of the default.
    #[arg(
        long = "topic",
        default_values = ["log-events:4", "anomaly-results:4", "log-events.dlq:1"],
        value_parser = topic,
        value_name = "NAME:PARTITIONS"
    )]
    pub(super) topics: Vec<Topic>,
}

fn rate(text: &str) -> Result<f64, String> {
    in_range(text, 0.1, 200_000.0)
}

fn named_rate(text: &str) -> Result<f64, String> {
    match text {
        "low" => Ok(0.5),
        "medium" => Ok(5.0),
        "high" => Ok(50.0),
        number => rate(number),
    }
}

fn probability(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, 1.0)
}

fn days(text: &str) -> Result<f64, String> {
    in_range(text, 0.000_1, 3_660.0)
}

fn in_range(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) => Err(format!("expected {least} to {most}")),
        Err(_) => Err("not a number".to_owned()),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected IP:PORT, such as 127.0.0.1:9092";
    let address: SocketAddr = text
        .replace("localhost:", "127.0.0.1:")
        .parse()
        .map_err(|_| expected.to_owned())?;
    if address.ip().is_unspecified() {
        return Err("name the address that clients reach: they are told to come back to it".into());
    }
    Ok(address)
}

fn topic(text: &str) -> Result<Topic, String> {
    /// More would only waste memory: the broker is one process.
    const PARTITIONS_MAX: i32 = 1_000;
    let (name, partitions) = text
        .rsplit_once(':')
        .ok_or("expected NAME:PARTITIONS, such as log-events:4")?;
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if name.is_empty() || name.len() > 249 || !name.chars().all(legal) {
        return Err("topic names are 1 to 249 letters, digits, `.`, `_` and `-`".to_owned());
    }
    match partitions.parse() {
        Ok(partitions @ 1..=PARTITIONS_MAX) => Ok(Topic {
            name: name.to_owned(),
            partitions,
        }),
        _ => Err(format!("expected 1 to {PARTITIONS_MAX} partitions")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates_have_names_and_limits() {
        assert_eq!(
            ["low", "medium", "high"].map(named_rate),
            [Ok(0.5), Ok(5.0), Ok(50.0)]
        );
        assert_eq!(["0.1", "200000"].map(named_rate), [Ok(0.1), Ok(200_000.0)]);
        assert!(
            ["0", "200001", "NaN", "inf", "fast"]
                .iter()
                .all(|rate| named_rate(rate).is_err())
        );
    }

    #[test]
    fn addresses_must_be_reachable_by_name() {
        assert_eq!(
            listen("localhost:1").unwrap(),
            listen("127.0.0.1:1").unwrap()
        );
        assert!(listen("0.0.0.0:9092").is_err() && listen("9092").is_err());
        assert!(listen("[::1]:9092").is_ok());
    }

    #[test]
    fn topics_are_checked() {
        let partitions = |text| topic(text).map(|topic| topic.partitions);
        assert_eq!(partitions("log-events.dlq:1"), Ok(1));
        assert!(
            ["a", ":1", "a:0", "a:1001", "a b:1", "a:x"]
                .iter()
                .all(|text| topic(text).is_err())
        );
    }
}

//! The command line: raw arguments only. What they mean together with the configuration file and
//! the environment is `config`'s; what they do is `main`'s.

mod alarms;
mod templates;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use alarms::{AcknowledgeArgs, AlarmsArgs, EvidenceArgs, FeedbackArgs, MutesArgs};
pub use templates::TemplatesArgs;

/// Finds anomalies in log streams: Kafka in, 30-second windows, scores in PostgreSQL, alarms out.
#[derive(Debug, Parser)]
#[command(name = "logguard", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// Configuration file; `logguard.toml` in the working directory if there is one.
    #[arg(long, global = true, env = "LOGGUARD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log, in tracing's filter syntax (`info`, `logguard=debug`).
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Settings come from defaults, then logguard.toml, then LOGGUARD_SECTION__KEY in the environment, \
then flags; `logguard config print` shows the outcome.

Exit codes: 0 ok, 1 failed under way, 2 usage, 3 configuration or input, 4 a dependency cannot be reached.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Score a topic's windows as they close, until SIGTERM or SIGINT.
    #[command(after_help = "\
Examples:
  logguard run --kafka-brokers kafka:9092 --database-url postgres://logguard@db/logguard
  logguard run --learn 30m                # without a model: learn a first one from the topic
  logguard run --store none --anomaly-log /var/log/anomalies.log
  logguard run --kafka security.protocol=SASL_SSL --kafka sasl.mechanisms=SCRAM-SHA-512")]
    Run(RunArgs),
    /// Learn a model from log files or a topic; labels are not needed.
    #[command(after_help = "\
Examples:
  logguard train --from-kafka --since 24h --kafka-brokers kafka:9092 --model-dir model
  logguard train --input logs.parquet --model-dir model
  logguard train --input logs.parquet --database-url postgres://logguard@db/logguard
  logguard train --input monday.jsonl.gz --input tuesday.jsonl.gz --model-dir model
  zcat archive/*.gz | logguard train --input - --model-dir model")]
    Train(TrainArgs),
    /// Score a file or a topic from beginning to end, and compare with its labels if it has any.
    #[command(after_help = "\
Examples:
  logguard replay --input test.csv --model-dir model
  logguard replay --input test.csv --model-dir model --json | jq .f1
  logguard replay --input test.csv --model-dir model --html report.html
  logguard replay --input test.csv --model model --against new-model --tolerance 0.01
  logguard train --input logs.csv --model-dir model --detector isolation-forest
  logguard replay --input test.csv --model-dir model --compare
  logguard replay --from-kafka --kafka-brokers localhost:9092 --model-dir model --results out.jsonl")]
    Replay(ReplayArgs),
    /// Create or update the tables; safe to run from several places at once.
    #[command(after_help = "\
Examples:
  logguard migrate --database-url postgres://logguard@localhost/logguard
  logguard migrate --retention off        # keep old data
  logguard migrate --roles                # then: CREATE ROLE grafana LOGIN IN ROLE logguard_reader")]
    Migrate(MigrateArgs),
    /// Drop old rows and refresh summaries, once: for a timer. TimescaleDB does most of it itself.
    #[command(after_help = "\
Results, features, templates and alarms are kept 30 days, raw lines 7, unless retention is off
(`logguard migrate --retention off`).

Examples:
  logguard maintain --database-url postgres://logguard@localhost/logguard
  logguard maintain --dry-run             # only count what would be dropped")]
    Maintain(MaintainArgs),
    /// Record that a version of a service was rolled out, to see what changed since.
    #[command(after_help = "\
Examples:
  logguard deploy auth-service 1.4.0
  logguard deploy auth-service 1.4.0 --at 2025-12-24T23:44:17Z --by ci

A line of the input topic with \"event\":\"deploy\", a service and a version records one as well.
docs/SQL.md shows the views that answer: deploy_impact, new_templates_since_deploy.")]
    Deploy(DeployArgs),
    /// List the alarms of all replicas, and follow them.
    #[command(after_help = alarms::ALARMS_EXAMPLES)]
    Alarms(AlarmsArgs),
    /// Read an alarm's records again, score them again, and say whether the score is proved.
    #[command(after_help = alarms::EVIDENCE_EXAMPLES)]
    Evidence(EvidenceArgs),
    /// Say that somebody looks after an alarm.
    #[command(after_help = alarms::ACKNOWLEDGE_EXAMPLES)]
    Acknowledge(AcknowledgeArgs),
    /// Say whether an alarm was real; a false one mutes its pattern in that stream for a while.
    #[command(after_help = alarms::FEEDBACK_EXAMPLES)]
    Feedback(FeedbackArgs),
    /// List what is muted, or lift a mute.
    #[command(after_help = alarms::MUTES_EXAMPLES)]
    Mutes(MutesArgs),
    /// Look at a model.
    Model {
        /// What to do with it.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Look at the configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// `logguard model …`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Print what the model learnt.
    Show {
        /// Where the model is and how it is judged.
        #[command(flatten)]
        model: ModelArgs,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List the templates of a model, or those that streams watch and adopted since; adopt or forget
    /// one by hand.
    #[command(after_help = templates::EXAMPLES)]
    Templates(TemplatesArgs),
}

/// `logguard config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration as TOML, secrets redacted.
    Print(ConfigArgs),
    /// Check the configuration and say what is wrong with it.
    Check(ConfigArgs),
}

/// The settings that have flags, or environment variables of other programs, besides their own.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Where the model is and how it is judged.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelArgs {
    /// Directory of the model bundle (`model.json`).
    #[arg(long, visible_alias = "model", value_name = "DIR")]
    pub model_dir: Option<PathBuf>,
    /// Most false alarm windows a day on normal time, over all streams together.
    #[arg(long, value_name = "N")]
    pub alarms_per_day: Option<f64>,
}

/// How windows are cut.
#[derive(Clone, Debug, Default, Args)]
pub struct WindowArgs {
    /// Window length in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub window: Option<u32>,
    /// How far out of order records may come, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub lateness: Option<u32>,
    /// What makes records one stream.
    #[arg(long, value_name = "BY")]
    pub group_by: Option<GroupByArg>,
}

/// What makes records one stream.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupByArg {
    /// One stream per partition.
    Partition,
    /// One stream per partition and service.
    Service,
}

/// How Kafka is reached.
#[derive(Clone, Debug, Default, Args)]
pub struct KafkaArgs {
    /// Kafka bootstrap servers, comma separated.
    #[arg(long, env = "KAFKA_BROKERS", value_name = "HOST:PORT")]
    pub kafka_brokers: Option<String>,
    /// Topic of the log events.
    #[arg(long, value_name = "TOPIC")]
    pub input_topic: Option<String>,
    /// A librdkafka property; may be repeated.
    #[arg(long = "kafka", value_name = "KEY=VALUE", value_parser = property)]
    pub kafka_properties: Vec<(String, String)>,
}

/// How the database is reached.
#[derive(Clone, Debug, Default, Args)]
pub struct StoreArgs {
    /// PostgreSQL or TimescaleDB, `postgres://user:password@host:port/database`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Topic of the results.
    #[arg(long, value_name = "TOPIC")]
    pub output_topic: Option<String>,
    /// Topic of the records that could not be scored.
    #[arg(long, value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Consumer group; its members share the partitions.
    #[arg(long, value_name = "GROUP")]
    pub consumer_group: Option<String>,
    /// How windows are cut.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Where the model is and how it is judged.
    #[command(flatten)]
    pub model: ModelArgs,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where there is no model: learn a first one from so much of the input topic (one replica does,
    /// the others wait for it).
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        default_missing_value = "30m"
    )]
    pub learn: Option<String>,
    /// Where rows go; with `none` baselines start cold after every restart.
    #[arg(long = "store", value_name = "KIND")]
    pub store_kind: Option<StoreKindArg>,
    /// Whether a window may raise its alarm before it is full.
    #[arg(long, value_name = "ON|OFF")]
    pub early_alarms: Option<OnOff>,
    /// File that alarms are appended to.
    #[arg(long, value_name = "FILE")]
    pub anomaly_log: Option<PathBuf>,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, value_name = "HOST:PORT")]
    pub http_listen: Option<String>,
}

/// Where rows go.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKindArg {
    /// PostgreSQL or TimescaleDB.
    Postgres,
    /// Nowhere.
    None,
}

/// Flags of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Parquet, CSV or JSON lines, also .gz and .zst; `-` is standard input; may be repeated.
    #[arg(long, required_unless_present = "from_kafka", value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// Learn from the input topic to its present end, outside any group; its partitions are one log.
    #[arg(long, conflicts_with = "input")]
    pub from_kafka: bool,
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How windows are cut.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Directory that the model bundle (`model.json`) goes to.
    #[arg(long, value_name = "DIR")]
    pub model_dir: Option<PathBuf>,
    /// Learn from events since this time only (RFC 3339), or from so long ago on (`24h`).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Learn from events before this time only (RFC 3339), or from before so long ago (`1h`).
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// With `isolation-forest` the model holds that detector as well, for `replay`; `run` never goes by
    /// it.
    #[arg(long, value_enum, default_value_t)]
    pub detector: DetectorArg,
    /// Learn from the feedback in this database as well: false alarms are taken as normal, real ones
    /// are left out.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Print what was learnt as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What judges windows.
#[derive(Clone, Copy, Debug, Default, ValueEnum, PartialEq, Eq)]
pub enum DetectorArg {
    /// The six signals that `run` goes by.
    #[default]
    Signals,
    /// An isolation forest over the same columns, to compare with.
    IsolationForest,
}

/// Flags of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Parquet, CSV or JSON lines, also .gz and .zst; `-` is standard input; may be repeated.
    #[arg(long, required_unless_present = "from_kafka", value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// Read the input topic from its beginning to its present end, outside any group.
    #[arg(long, conflicts_with = "input")]
    pub from_kafka: bool,
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How windows are cut.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Where the model is and how it is judged.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Whether a window may raise its alarm before it is full, as in `run`.
    #[arg(long, value_name = "ON|OFF")]
    pub early_alarms: Option<OnOff>,
    /// Judge with the mutes in this database, as `run` does; without it nothing is muted.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Score events from this time on only (RFC 3339).
    #[arg(long, value_name = "TIME", conflicts_with = "from_kafka")]
    pub since: Option<String>,
    /// Column that holds the ground truth.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "is_anomaly",
        conflicts_with = "from_kafka"
    )]
    pub label_column: String,
    /// Write every window's result message to this file, one JSON line each.
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a report to this file, to be looked at in a browser: one page that loads nothing.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// What judges the windows: `isolation-forest` needs a model trained with it, and is there to
    /// compare with; `run` never goes by it.
    #[arg(long, value_enum, default_value_t)]
    pub detector: DetectorArg,
    /// Print the figures of both detectors side by side.
    #[arg(long, conflicts_with_all = ["html", "results", "against", "detector"])]
    pub compare: bool,
    /// Compare the model (A) with the one in this directory (B), on the same input; exit with 1 if B
    /// is worse.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["html", "results", "detector"])]
    pub against: Option<PathBuf>,
    /// By how much B may be worse: with labels in F1; without, in the share of overlays found (known
    /// kinds of incident laid over copies of normal windows) and, beyond its budget, in the relative
    /// number of alarms.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.02,
        value_parser = share,
        requires = "against"
    )]
    pub tolerance: f64,
}

/// Flags of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Whether old rows are dropped, by TimescaleDB or by `maintain`: `off` keeps everything. Without
    /// it the database stays as it is; a new one drops.
    #[arg(long, value_name = "ON|OFF")]
    pub retention: Option<OnOff>,
    /// Make the roles `logguard_reader` (reads everything) and `logguard_writer` (what `run` needs),
    /// and give them their rights.
    #[arg(long)]
    pub roles: bool,
}

/// Flags of `maintain`.
#[derive(Debug, Args)]
pub struct MaintainArgs {
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Only count what would be dropped.
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The service, as its log lines name it.
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The version that runs from then on.
    #[arg(value_name = "VERSION")]
    pub version: String,
    /// When it was rolled out (RFC 3339); now, if not given.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Who says so.
    #[arg(long, env = "USER", value_name = "NAME")]
    pub by: Option<String>,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// On or off.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a number")?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("expected a number from 0 to 1".to_owned())
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Cli {
    /// Returns the settings that flags give, in the shape of the configuration file.
    #[must_use]
    pub fn overrides(&self) -> Value {
        let mut settings = Map::new();
        put(&mut settings, "log", "filter", self.log.as_ref());
        match &self.command {
            Command::Run(args) => args.overrides(&mut settings),
            Command::Train(args) => {
                args.kafka.overrides(&mut settings);
                args.window.overrides(&mut settings);
                put(&mut settings, "model", "dir", args.model_dir.as_ref());
                put(&mut settings, "store", "url", args.database_url.as_ref());
            }
            Command::Replay(args) => {
                args.kafka.overrides(&mut settings);
                args.window.overrides(&mut settings);
                args.model.overrides(&mut settings);
                put_early_alarms(&mut settings, args.early_alarms);
                put(&mut settings, "store", "url", args.database_url.as_ref());
            }
            Command::Migrate(args) => args.store.overrides(&mut settings),
            Command::Maintain(args) => args.store.overrides(&mut settings),
            Command::Deploy(args) => args.store.overrides(&mut settings),
            Command::Alarms(args) => args.store.overrides(&mut settings),
            Command::Evidence(args) => {
                args.kafka.overrides(&mut settings);
                args.store.overrides(&mut settings);
            }
            Command::Acknowledge(args) => args.store.overrides(&mut settings),
            Command::Feedback(args) => args.store.overrides(&mut settings),
            Command::Mutes(args) => args.store.overrides(&mut settings),
            Command::Model {
                command: ModelCommand::Show { model, .. },
            } => {
                model.overrides(&mut settings);
            }
            Command::Model {
                command: ModelCommand::Templates(args),
            } => {
                put(&mut settings, "model", "dir", args.model_dir.as_ref());
                args.store.overrides(&mut settings);
            }
            Command::Config {
                command: ConfigCommand::Print(args) | ConfigCommand::Check(args),
            } => {
                args.kafka.overrides(&mut settings);
                args.store.overrides(&mut settings);
            }
        }
        Value::Object(settings)
    }
}

impl RunArgs {
    fn overrides(&self, settings: &mut Map<String, Value>) {
        self.kafka.overrides(settings);
        self.window.overrides(settings);
        self.model.overrides(settings);
        put_early_alarms(settings, self.early_alarms);
        self.store.overrides(settings);
        put(
            settings,
            "kafka",
            "output_topic",
            self.output_topic.as_ref(),
        );
        put(
            settings,
            "kafka",
            "dead_letter_topic",
            self.dead_letter_topic.as_ref(),
        );
        put(
            settings,
            "kafka",
            "consumer_group",
            self.consumer_group.as_ref(),
        );
        put(settings, "model", "learn", self.learn.as_ref());
        put(settings, "store", "kind", self.store_kind);
        put(settings, "alarms", "path", self.anomaly_log.as_ref());
        put(settings, "http", "listen", self.http_listen.as_ref());
    }
}

impl KafkaArgs {
    fn overrides(&self, settings: &mut Map<String, Value>) {
        put(settings, "kafka", "brokers", self.kafka_brokers.as_ref());
        put(settings, "kafka", "input_topic", self.input_topic.as_ref());
        if !self.kafka_properties.is_empty() {
            let properties: Map<_, _> = self
                .kafka_properties
                .iter()
                .map(|(key, value)| (key.clone(), json!(value)))
                .collect();
            put(settings, "kafka", "properties", Some(properties));
        }
    }
}

impl WindowArgs {
    fn overrides(&self, settings: &mut Map<String, Value>) {
        put(settings, "window", "length_s", self.window);
        put(settings, "window", "lateness_ms", self.lateness);
        put(settings, "window", "group_by", self.group_by);
    }
}

impl ModelArgs {
    fn overrides(&self, settings: &mut Map<String, Value>) {
        put(settings, "model", "dir", self.model_dir.as_ref());
        put(settings, "model", "alarms_per_day", self.alarms_per_day);
    }
}

impl StoreArgs {
    fn overrides(&self, settings: &mut Map<String, Value>) {
        put(settings, "store", "url", self.database_url.as_ref());
    }
}

fn put_early_alarms(settings: &mut Map<String, Value>, wanted: Option<OnOff>) {
    let on = wanted.map(|wanted| wanted == OnOff::On);
    put(settings, "model", "early_alarms", on);
}

fn put(settings: &mut Map<String, Value>, section: &str, key: &str, value: Option<impl Serialize>) {
    if let Some(value) = value
        && let Ok(value) = serde_json::to_value(value)
        && let Some(section) = settings
            .entry(section)
            .or_insert_with(|| json!({}))
            .as_object_mut()
    {
        section.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_take_the_shape_of_the_file() {
        let cli = Cli::parse_from([
            "logguard",
            "run",
            "--kafka-brokers",
            "k:1",
            "--window",
            "10",
            "--kafka",
            "a.b=c=d",
            "--early-alarms=off",
        ]);
        assert_eq!(
            cli.overrides(),
            json!({
                "kafka": {"brokers": "k:1", "properties": {"a.b": "c=d"}},
                "window": {"length_s": 10},
                "model": {"early_alarms": false},
            })
        );
    }
}

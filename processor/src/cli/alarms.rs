//! Flags of the commands that deal with alarms once they are raised.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{KafkaArgs, StoreArgs};

pub(super) const ALARMS_EXAMPLES: &str = "\
Examples:
  logguard alarms                              # of the last 24 hours
  logguard alarms -f                           # those, and all that come
  logguard alarms --since 2025-12-27T10:00:00Z --stream log-events/0
  logguard alarms -f --json | jq -r .alarm_id";

pub(super) const EVIDENCE_EXAMPLES: &str = "\
Examples:
  logguard evidence 4a6fb2c1d03e9587
  logguard evidence 4a6fb2c1d03e9587 --lines 500 --kafka-brokers kafka:9092
  logguard evidence 4a6fb2c1d03e9587 --json | jq .outcome

Exit codes: 0 the score is proved, 1 it differs or cannot be proved, 2 usage, 3 configuration or no such \
alarm, 4 a dependency cannot be reached.";

pub(super) const ACKNOWLEDGE_EXAMPLES: &str = "\
Example:
  logguard acknowledge 4a6fb2c1d03e9587 --note 'restarting the pool'";

pub(super) const FEEDBACK_EXAMPLES: &str = "\
Examples:
  logguard feedback 4a6fb2c1d03e9587 --false-alarm --note 'nightly import'
  logguard feedback 4a6fb2c1d03e9587 --false-alarm --expires 30d
  logguard feedback 4a6fb2c1d03e9587 --real        # lifts what was muted for it

What is muted, for this stream alone, is what the alarm was about: templates, the number of errors, or \
the number of lines. Anything else in the same window still alarms. It begins within a minute.";

pub(super) const MUTES_EXAMPLES: &str = "\
Examples:
  logguard mutes
  logguard mutes --all --json
  logguard mutes --lift 12";

/// Flags of `alarms`.
#[derive(Debug, Args)]
pub struct AlarmsArgs {
    /// Go on with the alarms that come, until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Alarms raised at this time or later (RFC 3339); those of the last 24 hours by default.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Alarms of this stream (`topic/partition` or `topic/partition/service`).
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Print each alarm as one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Flags of `evidence`.
#[derive(Debug, Args)]
pub struct EvidenceArgs {
    /// The alarm: 16 hex digits, as in `| Alarm: …`.
    #[arg(value_name = "ALARM_ID")]
    pub alarm_id: String,
    /// Most lines shown; all are scored.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub lines: usize,
    /// Who looks, for the record; the system's user by default.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Flags of `acknowledge`.
#[derive(Debug, Args)]
pub struct AcknowledgeArgs {
    /// The alarm: 16 hex digits, as in `| Alarm: …`.
    #[arg(value_name = "ALARM_ID")]
    pub alarm_id: String,
    /// What there is to say.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Who, for the record; the system's user by default.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Flags of `feedback`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("verdict").required(true).args(["false_alarm", "real"]))]
pub struct FeedbackArgs {
    /// The alarm: 16 hex digits, as in `| Alarm: …`.
    #[arg(value_name = "ALARM_ID")]
    pub alarm_id: String,
    /// Nothing was wrong: its pattern is muted for this stream.
    #[arg(long)]
    pub false_alarm: bool,
    /// Something was wrong.
    #[arg(long)]
    pub real: bool,
    /// What there is to say.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// How long its pattern is muted.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "7d",
        value_parser = humantime::parse_duration,
        conflicts_with = "real"
    )]
    pub expires: Duration,
    /// Who, for the record; the system's user by default.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Flags of `mutes`.
#[derive(Debug, Args)]
pub struct MutesArgs {
    /// End this mute, within a minute.
    #[arg(long, value_name = "MUTE_ID", conflicts_with = "all")]
    pub lift: Option<i64>,
    /// Those that have expired or were lifted as well.
    #[arg(long)]
    pub all: bool,
    /// Who, for the record; the system's user by default.
    #[arg(long, value_name = "NAME", requires = "lift")]
    pub by: Option<String>,
    /// Print each mute as one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

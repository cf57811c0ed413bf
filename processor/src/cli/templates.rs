//! Flags of `model templates`.

use std::path::PathBuf;

use clap::Args;

use super::StoreArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  logguard model templates model                     # what training learnt
  logguard model templates --database-url postgres://logguard@db/logguard
  logguard model templates --stream log-events/0     # DATABASE_URL is set
  logguard model templates --adopt 00c4a1b2d3e4f506 --stream log-events/0
  logguard model templates --forget 00c4a1b2d3e4f506 --stream log-events/0

What is adopted by hand is known to the stream from then on, at any level; what is forgotten is new to it \
however often it comes, until it is adopted. Either takes back the other. It begins within a minute, with \
a window that has not closed anywhere; who decided, and when, is kept.

What the model learnt in training stays known while it judges: a decision on that is kept for \
later models, and says that it changes nothing now.";

/// Flags of `model templates`.
#[derive(Debug, Args)]
pub struct TemplatesArgs {
    /// Directory of a model, to list what it learnt.
    #[arg(value_name = "MODEL_DIR", required_unless_present = "database_url")]
    pub model_dir: Option<PathBuf>,
    /// The stream (`topic/partition` or `topic/partition/service`); all of them by default.
    #[arg(long, value_name = "STREAM", conflicts_with = "model_dir")]
    pub stream: Option<String>,
    /// Let the stream know this template.
    #[arg(
        long,
        value_name = "ID",
        requires = "stream",
        conflicts_with = "forget"
    )]
    pub adopt: Option<String>,
    /// Let this template be new to the stream.
    #[arg(long, value_name = "ID", requires = "stream")]
    pub forget: Option<String>,
    /// Who, for the record; the system's user by default.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Print each template, or the decision, as one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// How the database is reached.
    #[command(flatten)]
    pub store: StoreArgs,
}

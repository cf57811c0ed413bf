//! `logguard alarms`: lists the alarms of all replicas, and follows them.
//!
//! ```text
//! table alarms ──pages by seq──► lines
//!              ──every second: what was raised lately──► those not shown yet ──► lines
//! ```
//!
//! Numbers are given out when a row is written and seen when it is committed, so a smaller number may
//! appear after a larger one. Following therefore looks back by time, not by number: a row is stamped
//! when its statement begins, and no statement lasts as long as the look back.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::{
    cli::AlarmsArgs,
    clock::Clock,
    config::{Config, ConfigError},
    event::EventTime,
    files::parse_time,
    run,
    shutdown::Shutdown,
    sink::{
        alarm_file::printable,
        migrate,
        store::{AlarmQuery, Store, StoreKind, StoredAlarm},
    },
};

/// What is listed without `--since`.
const LISTED_S: f64 = 24.0 * 3600.0;
/// How often there is a look for new ones.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How far back that look goes: far longer than a statement may run (`store.statement_timeout`).
const LOOK_BACK_S: f64 = 600.0;
/// Alarms remembered longer than the look back by this factor are forgotten.
const FORGET_FACTOR: f64 = 2.0;

/// Opens the database that alarms, feedback and mutes are kept in.
///
/// # Errors
/// The settings ask for none, the server cannot be reached or refuses, or its schema is too old.
pub(crate) async fn open_store(config: &Config) -> anyhow::Result<Store> {
    if config.store.kind == StoreKind::None {
        return Err(ConfigError::from(
            "this needs the database, and store.kind is `none`".to_owned(),
        )
        .into());
    }
    migrate::check(&config.store).await?;
    Ok(Store::new(&config.store, &config.kafka.consumer_group)?)
}

/// Returns who is at work, for the record: `name`, or the system's user and host.
#[must_use]
pub(crate) fn actor(name: Option<&str>) -> String {
    let unknown = || "unknown".to_owned();
    name.map_or_else(
        || {
            let user = whoami::username().unwrap_or_else(|_| unknown());
            let host = whoami::hostname().unwrap_or_else(|_| unknown());
            format!("{user}@{host}")
        },
        str::to_owned,
    )
}

/// What a command says of an alarm id that no alarm has.
pub(crate) fn no_such_alarm(alarm_id: &str) -> ConfigError {
    ConfigError::from(format!(
        "there is no alarm `{alarm_id}` in this database; `logguard alarms` lists them"
    ))
}

/// Lists alarms, and follows them until interrupted if asked to.
///
/// # Errors
/// Returns an error if the database cannot be reached or refuses, or `out` cannot be written.
pub fn alarms(config: &Config, args: &AlarmsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let since = args.since.as_deref().map(parse_time).transpose()?;
    let runtime = run::runtime()?;
    runtime.block_on(async {
        let store = open_store(config).await?;
        let query = AlarmQuery {
            since: since.map(EventTime::to_datetime),
            within_s: since.is_none().then_some(LISTED_S),
            stream: args.stream.clone(),
            after_seq: 0,
        };
        let mut shown = Shown::default();
        list(&store, query.clone(), (args, &mut shown), out).await?;
        if args.follow {
            follow(&store, &query, (args, &mut shown), out).await?;
        }
        Ok(())
    })
}

/// Shows every alarm that `query` asks for and that was not shown yet.
async fn list(
    store: &Store,
    mut query: AlarmQuery,
    (args, shown): (&AlarmsArgs, &mut Shown),
    out: &mut impl Write,
) -> anyhow::Result<()> {
    loop {
        let page = store.alarms(&query).await?;
        let Some(last) = page.last() else {
            break;
        };
        query.after_seq = last.seq;
        for alarm in &page {
            if shown.add(alarm) {
                write_alarm(alarm, args.json, out)?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

async fn follow(
    store: &Store,
    query: &AlarmQuery,
    (args, shown): (&AlarmsArgs, &mut Shown),
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let shutdown = Shutdown::install()?;
    let clock = Clock::system();
    let mut away = false;
    while !shutdown.requested() {
        tokio::time::sleep(POLL_EVERY).await;
        let recent = AlarmQuery {
            within_s: Some(LOOK_BACK_S),
            ..query.clone()
        };
        match list(store, recent, (args, shown), out).await {
            Ok(()) => away = false,
            // A server that restarts is waited for; whoever follows wants to go on.
            Err(error) if error.chain().any(is_unreachable) => {
                if !away {
                    tracing::warn!(error = format!("{error:#}"), "waiting for the database");
                }
                away = true;
            }
            Err(error) => return Err(error),
        }
        if !away {
            shown.forget(clock.now());
        }
    }
    Ok(())
}

fn is_unreachable(cause: &(dyn std::error::Error + 'static)) -> bool {
    let store = cause.downcast_ref::<crate::sink::store::StoreError>();
    store.is_some_and(crate::sink::store::StoreError::is_unreachable)
}

/// The alarms shown lately, by number.
#[derive(Debug, Default)]
struct Shown(BTreeMap<i64, DateTime<Utc>>);

impl Shown {
    /// Returns whether it is new.
    fn add(&mut self, alarm: &StoredAlarm) -> bool {
        self.0.insert(alarm.seq, alarm.raised_at).is_none()
    }

    /// Forgets those that no look back brings again. Clocks of server and client may differ: what
    /// counts is the newest time the server gave.
    fn forget(&mut self, now: DateTime<Utc>) {
        let newest = self.0.values().max().copied().unwrap_or(now);
        #[allow(clippy::cast_possible_truncation, reason = "twenty minutes")]
        let kept = chrono::Duration::seconds((FORGET_FACTOR * LOOK_BACK_S) as i64);
        self.0.retain(|_, raised_at| newest - *raised_at <= kept);
    }
}

fn write_alarm(alarm: &StoredAlarm, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, alarm)?;
        return writeln!(out);
    }
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    write!(
        out,
        "{} {} score {:.3} {} to {} logs {} critical {}",
        alarm.alarm_id,
        printable(&alarm.stream),
        alarm.anomaly_score,
        time(alarm.window_start),
        time(alarm.window_end),
        alarm.log_count,
        alarm.critical_count,
    )?;
    for (flag, name) in [(alarm.provisional, "provisional"), (alarm.stale, "stale")] {
        if flag {
            write!(out, " {name}")?;
        }
    }
    if let Some(feedback) = &alarm.feedback {
        write!(out, " {feedback}")?;
    }
    match alarm.reasons.first() {
        Some(reason) => writeln!(out, ": {}", printable(reason)),
        None => writeln!(out),
    }
}

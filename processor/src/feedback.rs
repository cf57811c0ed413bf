//! `logguard feedback`, `acknowledge` and `mutes`: what people make of alarms.
//!
//! ```text
//! alarm's pattern ─► mutes of its stream, from the first window that all replicas can know of
//! ```

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::{
    alarms::{actor, no_such_alarm, open_store},
    cli::{AcknowledgeArgs, FeedbackArgs, MutesArgs},
    clock::Clock,
    config::{Config, ConfigError},
    model::{Explanation, PARTS_MAX, Pattern},
    mutes, run,
    sink::{
        alarm_file::printable,
        store::{Feedback, StoredAlarm, StoredMute},
    },
};

/// What came of a feedback.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    alarm_id: &'a str,
    feedback: &'static str,
    by: &'a str,
    /// Mutes made now.
    mutes: &'a [StoredMute],
}

/// Notes whether an alarm was real, and mutes the pattern of a false one.
///
/// # Errors
/// There is no such alarm, the expiry makes no sense, or the database cannot be reached or refuses.
pub fn feedback(
    config: &Config,
    args: &FeedbackArgs,
    clock: &Clock,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    run::runtime()?.block_on(async {
        let store = open_store(config).await?;
        let alarm = store.alarm(&args.alarm_id).await?;
        let alarm = alarm.ok_or_else(|| no_such_alarm(&args.alarm_id))?;
        let bounds = alarm.bounds();
        let length_ms = bounds.end.as_millis() - bounds.start.as_millis();
        let active_from = mutes::active_from(clock.now(), length_ms.max(1));
        let expires_at = chrono::Duration::from_std(args.expires)
            .ok()
            .and_then(|length| active_from.checked_add_signed(length))
            .filter(|expires_at| *expires_at > active_from)
            .ok_or_else(|| ConfigError::from("--expires has to be a time from now".to_owned()))?;
        let patterns = if args.false_alarm {
            pattern_of(&alarm)?
        } else {
            Vec::new()
        };
        let by = actor(args.by.as_deref());
        let made = store
            .give_feedback(&Feedback {
                alarm_id: &args.alarm_id,
                false_alarm: args.false_alarm,
                note: args.note.as_deref(),
                actor: &by,
                patterns: &patterns,
                active_from,
                expires_at,
            })
            .await?
            .ok_or_else(|| no_such_alarm(&args.alarm_id))?;
        let outcome = Outcome {
            alarm_id: &args.alarm_id,
            feedback: if args.false_alarm {
                "false-alarm"
            } else {
                "real"
            },
            by: &by,
            mutes: &made,
        };
        write_outcome(&outcome, args, patterns.len(), out)?;
        Ok(())
    })
}

/// Returns what is muted when an alarm is called false: its pattern, as its explanation has it.
///
/// # Errors
/// The explanation cannot be read, or has none.
fn pattern_of(alarm: &StoredAlarm) -> Result<Vec<Pattern>, ConfigError> {
    let id = &alarm.alarm_id;
    let explanation: Explanation = serde_json::from_value(alarm.explanation.clone())
        .map_err(|error| format!("cannot read the explanation of alarm `{id}`: {error}"))?;
    if explanation.pattern.is_empty() {
        return Err(ConfigError::from(format!(
            "alarm `{id}` does not say what it is about; there is nothing to mute"
        )));
    }
    Ok(explanation.pattern)
}

fn write_outcome(
    outcome: &Outcome<'_>,
    args: &FeedbackArgs,
    parts: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    if args.json {
        serde_json::to_writer(&mut *out, outcome)?;
        return writeln!(out);
    }
    writeln!(
        out,
        "{} is {} (said {})",
        outcome.alarm_id,
        outcome.feedback,
        printable(outcome.by)
    )?;
    if args.false_alarm && outcome.mutes.len() < parts {
        let already = parts - outcome.mutes.len();
        writeln!(out, "muted already: {already} of {parts} parts")?;
    }
    if parts == PARTS_MAX {
        writeln!(
            out,
            "it may be about more than these {PARTS_MAX} parts; train again?"
        )?;
    }
    write_mutes(outcome.mutes, out)
}

/// Notes who looks after an alarm.
///
/// # Errors
/// There is no such alarm, or the database cannot be reached or refuses.
pub fn acknowledge(
    config: &Config,
    args: &AcknowledgeArgs,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    run::runtime()?.block_on(async {
        let store = open_store(config).await?;
        let by = actor(args.by.as_deref());
        let note = args.note.as_deref();
        if !store.acknowledge(&args.alarm_id, &by, note).await? {
            return Err(no_such_alarm(&args.alarm_id).into());
        }
        writeln!(out, "{} acknowledged by {}", args.alarm_id, printable(&by))?;
        Ok(())
    })
}

/// Lists what is muted, or lifts a mute.
///
/// # Errors
/// There is no such mute, or the database cannot be reached or refuses.
pub fn mutes(
    config: &Config,
    args: &MutesArgs,
    clock: &Clock,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    run::runtime()?.block_on(async {
        let store = open_store(config).await?;
        let shown = match args.lift {
            None => store.stored_mutes(args.all).await?,
            Some(id) => {
                let ends_at = mutes::ends_at(clock.now());
                let by = actor(args.by.as_deref());
                let lifted = store.lift_mute(id, ends_at, &by).await?;
                let gone = || {
                    ConfigError::from(format!(
                        "there is no mute {id} to lift; `logguard mutes` lists what is muted"
                    ))
                };
                vec![lifted.ok_or_else(gone)?]
            }
        };
        if args.json {
            for mute in &shown {
                serde_json::to_writer(&mut *out, mute)?;
                writeln!(out)?;
            }
        } else {
            write_mutes(&shown, out)?;
        }
        Ok(())
    })
}

fn write_mutes(mutes: &[StoredMute], out: &mut impl Write) -> io::Result<()> {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    for mute in mutes {
        let StoredMute {
            mute_id,
            stream,
            kind,
            alarm_id,
            created_by,
            ..
        } = mute;
        let (stream, by) = (printable(stream), printable(created_by));
        let (from, until) = (time(mute.active_from), time(mute.expires_at));
        write!(
            out,
            "{mute_id} {stream} {kind} from {from} until {until} by {by} for {alarm_id}"
        )?;
        if let Some(by) = &mute.lifted_by {
            write!(out, ", lifted by {}", printable(by))?;
        }
        match &mute.template_text {
            Some(text) => writeln!(out, ": {}", printable(text))?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

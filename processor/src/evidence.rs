//! `logguard evidence`: an alarm's records read again, scored again, and compared bit for bit with
//! what the database says.
//!
//! ```text
//! alarm ─► state row, model, mutes ─┐
//!      └─► offsets ─► Kafka ────────┴─► Rescoring ─► Comparison ─► report
//! ```
//!
//! Nothing is taken on trust: what is missing is named, and what differs is shown. Who asked is on
//! record in `alarm_actions`.

mod comparison;
mod records;
mod report;

use std::{io::Write, sync::Arc};

pub use comparison::{Comparison, Difference};
pub use records::Records;
pub use report::{EvidenceReport, ProofOutcome};

use crate::{
    alarms::{actor, no_such_alarm, open_store},
    cli::EvidenceArgs,
    config::Config,
    model::{Bundle, Detector, Mutes, ScoredWindow},
    pipeline::Shared,
    redact::Redactor,
    rescore::{Provenance, Rescoring},
    run,
    sink::store::{
        AlarmAction, Chain, RecoveredStream, Store, StoreError, StoredAlarm, StoredScore,
    },
};

/// What raised the alarms that a window's score explains: its lines, those so far, or that there were
/// none.
const PROVABLE: [&str; 3] = ["window", "early", "silence"];

/// The alarm is not proved; the report says why.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum NotProved {
    /// Scored again, the window says something else.
    #[error("the score differs from what the database says")]
    Differs,
    /// Something that the proof needs is gone.
    #[error("the score cannot be proved")]
    CannotBeProved,
}

/// Reads, scores and compares an alarm, and prints the outcome.
///
/// # Errors
/// [`NotProved`] after the report; else there is no such alarm, or the database or Kafka cannot be
/// reached.
pub fn evidence(config: &Config, args: &EvidenceArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let runtime = run::runtime()?;
    let kept = runtime.block_on(kept(config, args))?;
    let report = prove(config, args, kept)?;
    if args.json {
        report.write_json(out)
    } else {
        report.write_text(out)
    }?;
    match report.outcome {
        ProofOutcome::Proved => Ok(()),
        ProofOutcome::Differs => Err(NotProved::Differs.into()),
        ProofOutcome::CannotBeProved => Err(NotProved::CannotBeProved.into()),
    }
}

/// What the database has kept of an alarm.
struct Kept {
    alarm: StoredAlarm,
    /// The row that the alarm was raised with.
    row: Option<StoredScore>,
    row_is_gone: bool,
    state: Option<RecoveredStream>,
    model: Option<Bundle>,
    /// Why the model that there is cannot be used.
    unusable: Option<String>,
    mutes: Mutes,
}

async fn kept(config: &Config, args: &EvidenceArgs) -> anyhow::Result<Kept> {
    let store = open_store(config).await?;
    let alarm = store.alarm(&args.alarm_id).await?;
    let alarm = alarm.ok_or_else(|| no_such_alarm(&args.alarm_id))?;
    let by = actor(args.by.as_deref());
    let action = AlarmAction {
        alarm_id: &alarm.alarm_id,
        action: "evidence",
        actor: &by,
        note: None,
    };
    store.record_action(&action).await?;
    gather(&store, alarm).await
}

async fn gather(store: &Store, alarm: StoredAlarm) -> anyhow::Result<Kept> {
    let state = match alarm.state_window() {
        Some(bounds) => store.state_after(&alarm.stream, bounds).await?,
        None => None,
    };
    let row = store.score_of(&alarm.stream, alarm.bounds()).await?;
    let (model, unusable) = match store.model(&alarm.model_checksum).await {
        Ok(model) => (model, None),
        // Of an earlier program, say: what it scored can be shown and not be scored again.
        Err(error @ StoreError::Model { .. }) => (None, Some(Chain(&error).to_string())),
        Err(error) => return Err(error.into()),
    };
    Ok(Kept {
        row_is_gone: row.is_none(),
        // A provisional alarm is the clock's; the final row that came after it is the records'.
        row: row.filter(|row| row.provisional == alarm.provisional),
        model,
        unusable,
        mutes: store.mutes().await?,
        state,
        alarm,
    })
}

fn prove(config: &Config, args: &EvidenceArgs, kept: Kept) -> anyhow::Result<EvidenceReport> {
    let mut missing = missing(&kept);
    let Kept {
        alarm,
        row,
        state,
        model,
        mutes,
        ..
    } = kept;
    // Until its window is final, an early alarm has no row that says the same.
    let row = row.filter(|row| alarm.early_at.is_none() || !row.provisional);
    let row_ends = row.as_ref().and_then(|row| row.next_offset);
    let mut records = Records::new(&alarm, row_ends, args.lines);
    let mut scored = None;
    match model {
        Some(model) => {
            let redactor = Arc::new(Redactor::new(&config.redaction)?);
            let mut shared = judges(&alarm, model, mutes, redactor)?;
            let mut again = Rescoring::new(provenance(&alarm, state, row.is_some()), &mut shared);
            records.read(&config.kafka, &mut |record| again.record(record))?;
            scored = again.finish();
        }
        None => records.read_unscored(&config.kafka)?,
    }
    missing.extend(records.missing());
    let comparison = scored
        .as_ref()
        .filter(|_| missing.is_empty())
        .map(|scored: &ScoredWindow| Comparison::of(&alarm, row.as_ref(), scored));
    if comparison.is_none() && missing.is_empty() {
        missing.push("the records read again make no such window".to_owned());
    }
    Ok(EvidenceReport::new(alarm, records, comparison, missing))
}

/// Returns what the proof needs of the database and has not.
fn missing(kept: &Kept) -> Vec<String> {
    let alarm = &kept.alarm;
    let mut missing = Vec::new();
    if let Some(unusable) = &kept.unusable {
        missing.push(unusable.clone());
    } else if kept.model.is_none() {
        let checksum = &alarm.model_checksum;
        missing.push(format!("the model {checksum} is not in table models"));
    }
    if let Some(bounds) = alarm.state_window()
        && kept.state.is_none()
    {
        let (start, end) = (bounds.start, bounds.end);
        missing.push(format!(
            "the row of {start} to {end}, whose state it was scored with, is gone"
        ));
    }
    if kept.row_is_gone {
        missing.push("the window's row in anomaly_results is gone".to_owned());
    } else if kept.row.as_ref().is_some_and(|row| row.features.is_none()) {
        missing.push("the window's row in window_features is gone".to_owned());
    }
    if !provenance(alarm, None, true).is_told_apart() {
        missing.push(
            "services beyond the most that are told apart share this stream, and which they were \
             depends on all that came before"
                .to_owned(),
        );
    }
    if !PROVABLE.contains(&alarm.kind.as_str()) {
        missing.push(format!(
            "it was raised as `{}`, not by the score of a whole window",
            alarm.kind
        ));
    }
    missing
}

/// Returns the scorer as it was, with the mutes there are: they hold by event time.
fn judges(
    alarm: &StoredAlarm,
    model: Bundle,
    mutes: Mutes,
    redactor: Arc<Redactor>,
) -> anyhow::Result<Shared> {
    let detector = Detector::with_threshold(Arc::new(model), alarm.threshold);
    let mut shared = Shared::redacting(detector, redactor)?;
    shared.set_mutes(Arc::new(mutes));
    shared.set_early_alarms(alarm.early_at.is_some());
    Ok(shared)
}

fn provenance(alarm: &StoredAlarm, state: Option<RecoveredStream>, full: bool) -> Provenance {
    Provenance {
        stream: alarm.stream_key(),
        bounds: alarm.bounds(),
        span: alarm.span(),
        max_event_time_before: alarm.max_event_time_before.map(Into::into),
        lateness_ms: alarm.lateness_ms,
        state: state.map(|state| state.continued_by(&alarm.model_checksum)),
        open: alarm.provisional,
        early: alarm.early_at.is_some() && !full,
    }
}

//! `logguard model templates`: what a model learnt, what streams met since, and what people make of it.
//!
//! ```text
//! newest row of each stream ─► its baseline ─► templates watched and adopted
//! decision ─► table ─► scorer, from the first window that all replicas can know of
//! ```

use std::{collections::HashMap, io::Write};

use serde::Serialize;

use crate::{
    alarms::{actor, open_store},
    cli::TemplatesArgs,
    clock::Clock,
    config::{Config, ConfigError},
    model::{Bundle, StreamTemplate},
    mutes, run,
    sink::{
        alarm_file::printable,
        store::{Store, StoredDecision, StoredStream},
    },
};

/// Lists templates, or decides of one.
///
/// # Errors
/// The model cannot be read; there is no such stream or template; or the database cannot be reached or
/// refuses.
pub fn templates(
    config: &Config,
    args: &TemplatesArgs,
    clock: &Clock,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if args.model_dir.is_some() {
        return list_model(&Bundle::load(&config.model.dir)?, args.json, out);
    }
    run::runtime()?.block_on(async {
        let store = open_store(config).await?;
        let streams = store.stored_streams(args.stream.as_deref()).await?;
        if let Some(name) = args.stream.as_deref().filter(|_| streams.is_empty()) {
            return Err(no_such_stream(name).into());
        }
        let wanted = args.adopt.as_ref().map(|id| (id, true));
        let wanted = wanted.or(args.forget.as_ref().map(|id| (id, false)));
        match (wanted, streams.first()) {
            (Some((id, adopt)), Some(stream)) => {
                let by = actor(args.by.as_deref());
                let made = decide(&store, stream, (id, adopt), (&by, clock)).await?;
                write_decision(&made, args.json, out)
            }
            _ => list_streams(&store, &streams, args.json, out).await,
        }
    })
}

fn no_such_stream(name: &str) -> ConfigError {
    ConfigError::from(format!(
        "stream `{name}` has no row in this database; `logguard model templates` lists those that have"
    ))
}

async fn decide(
    store: &Store,
    stream: &StoredStream,
    (id, adopt): (&str, bool),
    (by, clock): (&str, &Clock),
) -> anyhow::Result<Made> {
    let name = &stream.stream;
    let number = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16);
    let number = number.ok_or_else(|| {
        ConfigError::from(format!("`{id}` is no template id; it has 16 hex digits"))
    })?;
    let id = format!("{number:016x}");
    let watched = stream.baseline.templates();
    let known = watched.iter().any(|it| it.template == number)
        || !store
            .template_texts(name, std::slice::from_ref(&id))
            .await?
            .is_empty();
    if !known {
        return Err(ConfigError::from(format!(
            "stream `{name}` has seen no template `{id}`; `logguard model templates --stream {name}` \
             lists those that are new to it"
        ))
        .into());
    }
    let active_from = mutes::active_from(clock.now(), stream.window_ms);
    let made = store.decide((name, &id), adopt, active_from, by).await?;
    let decision =
        made.ok_or_else(|| anyhow::anyhow!("the decision on `{id}` was not stored; try again"))?;
    // It is stored by now: what comes of it is said as far as that can be found out.
    let learnt = is_learnt(store, &stream.model_checksum, number).await;
    Ok(Made {
        decision,
        model_checksum: stream.model_checksum.clone(),
        takes_effect: learnt.map(|learnt| !learnt),
    })
}

/// Returns whether a model knows a template from training; `None` if the database has not that
/// model, or none that can be read.
async fn is_learnt(store: &Store, checksum: &str, template: u64) -> Option<bool> {
    match store.model(checksum).await {
        Ok(model) => model.map(|model| model.has_learnt(template)),
        Err(error) => {
            tracing::debug!(%error, checksum, "cannot read the model that judges the stream");
            None
        }
    }
}

/// A decision, and what comes of it.
#[derive(Debug, Serialize)]
struct Made {
    #[serde(flatten)]
    decision: StoredDecision,
    /// The model that judges the stream.
    model_checksum: String,
    /// Whether it moves that model, as it does unless training learnt the template; absent if
    /// that model cannot be read.
    takes_effect: Option<bool>,
}

fn write_decision(made: &Made, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, made)?;
        writeln!(out)?;
        return Ok(());
    }
    let decision = &made.decision;
    let (template, decided) = (&decision.template, &decision.decision);
    let (stream, by) = (printable(&decision.stream), printable(&decision.created_by));
    let from = decision.active_from.to_rfc3339();
    if made.takes_effect == Some(false) {
        writeln!(
            out,
            "{template} is known to {stream} from the training of model {}: `{decided}` (said \
             {by}) changes nothing while that model judges, and is kept for models that have not \
             learnt it, from {from} on",
            made.model_checksum
        )?;
        return Ok(());
    }
    let said = if decided == "adopt" {
        "is known to"
    } else {
        "is new to"
    };
    writeln!(out, "{template} {said} {stream} from {from} on (said {by})")?;
    Ok(())
}

/// A template of a stream, as it is listed.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    stream: &'a str,
    #[serde(flatten)]
    template: &'a StreamTemplate,
    text: Option<&'a str>,
    /// The newest decision on it.
    decision: Option<&'a StoredDecision>,
}

async fn list_streams(
    store: &Store,
    streams: &[StoredStream],
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let decisions = store.stored_decisions().await?;
    for stream in streams {
        let templates = stream.baseline.templates();
        let ids: Vec<String> = templates
            .iter()
            .map(|it| format!("{:016x}", it.template))
            .collect();
        let texts = store.template_texts(&stream.stream, &ids).await?;
        let texts: HashMap<String, String> = texts.into_iter().collect();
        for (template, id) in templates.iter().zip(&ids) {
            let of_template =
                |it: &&StoredDecision| it.stream == stream.stream && it.template == *id;
            let listed = Listed {
                stream: &stream.stream,
                template,
                text: texts.get(id).map(String::as_str),
                decision: decisions.iter().find(of_template),
            };
            if json {
                serde_json::to_writer(&mut *out, &listed)?;
                writeln!(out)?;
            } else {
                write_listed(&listed, out)?;
            }
        }
    }
    Ok(())
}

fn write_listed(listed: &Listed<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let StreamTemplate {
        template,
        first,
        last,
        windows,
        lines,
        ..
    } = listed.template;
    let state = match listed.template.adopted {
        Some(adopted) => format!("adopted at {adopted}"),
        None => format!("watched, {} windows in a row alone", listed.template.alone),
    };
    write!(
        out,
        "{template:016x} {} {state}; {lines} lines in {windows} windows, {first} to {last}",
        printable(listed.stream)
    )?;
    if let Some(made) = listed.decision {
        let (what, by) = (&made.decision, printable(&made.created_by));
        write!(
            out,
            "; {what} by {by} from {}",
            made.active_from.to_rfc3339()
        )?;
    }
    match listed.text {
        Some(text) => writeln!(out, ": {}", printable(text)),
        None => writeln!(out),
    }
}

fn list_model(bundle: &Bundle, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    for template in bundle.templates() {
        if json {
            serde_json::to_writer(&mut *out, &template)?;
            writeln!(out)?;
        } else {
            writeln!(
                out,
                "{} {} lines on {:.0} occasions: {}",
                template.id,
                template.lines,
                template.occasions,
                printable(&template.text)
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn said(decision: &str, takes_effect: Option<bool>, json: bool) -> String {
        let at = DateTime::from_timestamp(1_766_831_400, 0).unwrap();
        let made = Made {
            decision: StoredDecision {
                decision_id: 1,
                stream: "log-events/0".to_owned(),
                template: "00c4a1b2d3e4f506".to_owned(),
                decision: decision.to_owned(),
                active_from: at,
                created_at: at,
                created_by: "ann".to_owned(),
            },
            model_checksum: "c0ffee".to_owned(),
            takes_effect,
        };
        let mut out = Vec::new();
        write_decision(&made, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_decision_on_what_training_learnt_says_that_it_changes_nothing() {
        for decision in ["adopt", "forget"] {
            let text = said(decision, Some(false), false);
            assert!(
                text.contains("changes nothing") && text.contains("model c0ffee"),
                "{text}"
            );
            assert!(said(decision, Some(false), true).contains(r#""takes_effect":false"#));
        }
        let forgotten = "00c4a1b2d3e4f506 is new to log-events/0 from 2025-12-27T10:30:00+00:00 on \
                         (said ann)\n";
        for takes_effect in [Some(true), None] {
            assert_eq!(said("forget", takes_effect, false), forgotten);
        }
    }
}

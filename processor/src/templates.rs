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
) -> anyhow::Result<StoredDecision> {
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
    made.ok_or_else(|| anyhow::anyhow!("the decision on `{id}` was not stored; try again"))
}

fn write_decision(made: &StoredDecision, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, made)?;
        writeln!(out)?;
        return Ok(());
    }
    let said = if made.decision == "adopt" {
        "is known to"
    } else {
        "is new to"
    };
    writeln!(
        out,
        "{} {said} {} from {} on (said {})",
        made.template,
        printable(&made.stream),
        made.active_from.to_rfc3339(),
        printable(&made.created_by)
    )?;
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

//! `logguard deploy SERVICE VERSION`: records that a version of a service was rolled out, for the
//! views and dashboards that show what changed since. Kafka is not asked, and no model is needed.

use std::io::Write;

use crate::{
    alarms::actor,
    cli::DeployArgs,
    clock::Clock,
    config::{Config, ConfigError},
    decode::SERVICE_BYTES_MAX,
    event::{Deploy, EventTime},
    files::parse_time,
    run::runtime,
    sink::{
        migrate,
        store::{DeploySource, Store, StoreConfig},
    },
};

/// Records the deploy of `args` and says so. One that is recorded already stays as it is.
///
/// # Errors
/// An argument is empty, too long or no time; the server cannot be reached, refuses, or has no
/// schema.
pub fn deploy(config: &Config, args: &DeployArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let deploy = Deploy {
        service: name("service", &args.service)?,
        version: name("version", &args.version)?,
        at: match &args.at {
            Some(text) => parse_time(text)?,
            None => EventTime::from(Clock::system().now()),
        },
    };
    let source = DeploySource::Command {
        by: Some(actor(args.by.as_deref())),
    };
    let new = runtime()?.block_on(record(&config.store, &deploy, &source))?;
    let Deploy {
        service,
        version,
        at,
    } = deploy;
    let outcome = if new { "recorded" } else { "known already" };
    writeln!(out, "{service} {version} at {at}: {outcome}")?;
    Ok(())
}

/// Returns whether the deploy was new.
async fn record(
    config: &StoreConfig,
    deploy: &Deploy,
    source: &DeploySource,
) -> anyhow::Result<bool> {
    // The group is the processors'; a deploy belongs to none.
    let Some(store) = Store::configured(config, "")? else {
        let defect = "a deploy is kept in the store, and store.kind is `none`".to_owned();
        return Err(ConfigError::from(defect).into());
    };
    migrate::check(config).await?;
    let new = store
        .record_deploys(std::slice::from_ref(deploy), source)
        .await?;
    Ok(new > 0)
}

/// Returns an argument as it may stand in a row key: what a line of the topic may say, too.
fn name(argument: &str, text: &str) -> Result<String, ConfigError> {
    let text = text.trim();
    if text.is_empty() || text.len() > SERVICE_BYTES_MAX {
        let length = text.len();
        return Err(ConfigError::from(format!(
            "the {argument} is {length} bytes long: expected 1 to {SERVICE_BYTES_MAX}"
        )));
    }
    Ok(text.to_owned())
}

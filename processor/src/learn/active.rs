//! The model that is active in the store: for processes that have none of their own, and what those
//! that have one are told of it.

use std::sync::Arc;

use anyhow::Context;

use crate::{
    config::{Config, ConfigError},
    model::Bundle,
    sink::store::{Store, StoreError},
};

/// Returns the model that is active in the store for the input topic.
///
/// # Errors
/// The store cannot be asked, has lost the model, or it was made for windows of another length.
pub(crate) async fn active_model(
    config: &Config,
    store: &Store,
) -> anyhow::Result<Option<Arc<Bundle>>> {
    let Some(active) = store.active_model(&config.kafka.input_topic).await? else {
        return Ok(None);
    };
    let checksum = &active.checksum;
    let bundle = store.model(checksum).await?;
    let bundle = bundle.with_context(|| {
        format!("the active model {checksum} is not in the registry (table `models`)")
    })?;
    check_window(config, &bundle)?;
    tracing::info!(
        checksum,
        active_from = %active.active_from,
        learnt_by = active.activated_by,
        "running the active model of the store"
    );
    Ok(Some(Arc::new(bundle)))
}

/// Says so where the store names another model as active than the one that this process runs.
///
/// # Errors
/// The store cannot be asked.
pub(crate) async fn warn_of_another(
    store: &Store,
    topic: &str,
    running: &Bundle,
) -> Result<(), StoreError> {
    let active = store.active_model(topic).await?;
    if let Some(active) = active.filter(|it| *it.checksum != **running.checksum()) {
        tracing::warn!(
            topic,
            running = %running.checksum(),
            active = active.checksum,
            since = %active.activated_at,
            activated_by = active.activated_by,
            "the store names another model as active than the one that this process runs: replicas \
             that start without a model of their own run that one, and judge otherwise; give every \
             replica the same model directory and make its model the active one (see \
             docs/DEPLOYMENT.md), or start this one without"
        );
    }
    Ok(())
}

/// Refuses an active model made for windows of another length.
fn check_window(config: &Config, bundle: &Bundle) -> Result<(), ConfigError> {
    let learnt_s = bundle.window_length_ms() / 1_000;
    let length_s = i64::from(config.window.length_s);
    if learnt_s == length_s {
        return Ok(());
    }
    Err(ConfigError::from(format!(
        "the active model of topic `{}` was learnt on windows of {learnt_s} s, not {length_s} s: run \
         with --window {learnt_s}, or train one with `logguard train --from-kafka --window {length_s}` \
         and give it as --model-dir",
        config.kafka.input_topic
    )))
}

//! `logguard run`: starts every part of the live processor, waits for a signal or a failure, and
//! stops the parts in order. `logguard migrate` is here too: it prepares what `run` needs.
//!
//! ```text
//! model, store, sinks, HTTP ─► consumer thread (worker) ─► signal ─► drain ─► sinks closed ─► exit
//! ```
//!
//! A part that ends by itself ends the process: a processor without its consumer must not linger.

use std::{
    io::{self, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use crossbeam_channel::bounded;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    cli::{MigrateArgs, OnOff},
    clock::Clock,
    config::{Config, ConfigError},
    health::{self, Health},
    learn::{self, FirstStart},
    metrics::Metrics,
    model::{Bundle, BundleError},
    mutes,
    pipeline::Shared,
    recovery::RecoveryDesk,
    replay,
    shutdown::Shutdown,
    sink::{
        ACKS_QUEUE_MAX, RunningSinks, Sinks, SinksSetup,
        migrate::{self, MigrateOptions, Retention},
        store::{Chain, Store},
    },
    source::{self, SourceError, SourceReport, check_topics},
    worker::{Worker, WorkerParts, WorkerSettings},
};

/// How long the sinks may take to write what they hold once the consumer has stopped.
const SINKS_CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// What closing the consumer may take beyond its own shutdown timeout; librdkafka is known to hang
/// there now and then, and a process that hangs is worse than one that leaves the group by timeout.
const CONSUMER_CLOSE_WITHIN: Duration = Duration::from_secs(20);
/// How often the parts are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// How often the store is asked whether it answers.
const PROBE_STORE_EVERY: Duration = Duration::from_secs(5);
/// How often the model's registration is tried while the store is away.
const REGISTER_MODEL_EVERY: Duration = Duration::from_secs(10);
/// Tokio threads: the sinks wait far more than they compute.
const RUNTIME_THREADS: usize = 2;
/// Alarms of windows older than this are marked stale: they are history, not news.
const MAX_ALERT_AGE: Duration = Duration::from_secs(600);

type ConsumerThread = thread::JoinHandle<Result<SourceReport, SourceError>>;

/// Runs until a signal asks to stop.
///
/// # Errors
/// Returns an error if the model, the topics or the schema are not as they must be, if a
/// dependency cannot be reached at the start, or if a part fails for good.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let shutdown = Shutdown::install().context("failed to install the signal handlers")?;
    let own = own_model(config)?;
    let runtime = runtime()?;
    let result = runtime.block_on(run_parts(config, own, shutdown));
    // Whatever still waits for a dead peer must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// Returns the model of the model directory, or the error that says that there is none: the store may
/// have one, or it may be learnt.
///
/// # Errors
/// There is one that cannot be used.
fn own_model(config: &Config) -> anyhow::Result<Result<Arc<Bundle>, BundleError>> {
    match Bundle::load(&config.model.dir) {
        Ok(bundle) => {
            replay::check_window(config, &bundle)?;
            if config.model.learn.is_some() {
                let dir = config.model.dir.display();
                tracing::info!(%dir, "there is a model: --learn has nothing to do");
            }
            Ok(Ok(Arc::new(bundle)))
        }
        Err(BundleError::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Err(BundleError::Read { path, source }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the model that is active in the store for want of one's own; asked before anything else is
/// started, since without either there is nothing to start.
///
/// # Errors
/// There is none.
async fn active_or(config: &Config, missing: BundleError) -> anyhow::Result<Arc<Bundle>> {
    let Some(store) = Store::configured(&config.store, &config.kafka.consumer_group)? else {
        return Err(missing.into());
    };
    match learn::active_model(config, &store).await {
        Ok(Some(bundle)) => Ok(bundle),
        Ok(None) => {
            tracing::info!("the store has no active model either; --learn learns one");
            Err(missing.into())
        }
        Err(error) if error.is::<ConfigError>() => Err(error),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "cannot ask the store for an active model");
            Err(missing.into())
        }
    }
}

/// Starts the runtime of a command.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .context("failed to start the async runtime")
}

async fn run_parts(
    config: &Config,
    own: Result<Arc<Bundle>, BundleError>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let own = match own {
        Err(missing) if config.model.learn.is_none() => Ok(active_or(config, missing).await?),
        own => own,
    };
    let listener = health::bind(config.http.listen).await.with_context(|| {
        let address = config.http.listen;
        format!("cannot listen on {address}; set http.listen (--http-listen)")
    })?;
    let topics = config.kafka.clone();
    let partitions = tokio::task::spawn_blocking(move || check_topics(&topics)).await??;
    let store = open_store(config).await?;
    let metrics = Metrics::default();
    let health = Arc::new(Health::new(Clock::system()));
    health.set_reading(true);
    tokio::spawn(probe_store(store.clone(), Arc::clone(&health)));
    let address = listener.local_addr()?;
    tokio::spawn(health::serve(
        listener,
        Arc::clone(&health),
        metrics.registry(),
    ));
    tracing::info!(%address, "serving /metrics, /livez and /readyz");

    let first_start = FirstStart {
        config,
        store: store.as_ref(),
        health: &health,
        metrics: &metrics.learning,
        shutdown: &shutdown,
    };
    let Some(bundle) = first_start.model_or_own(own).await? else {
        tracing::info!("stopped before there was a model");
        return Ok(());
    };
    if let Some(store) = store.clone() {
        let topic = config.kafka.input_topic.clone();
        tokio::spawn(announce_model(store, topic, Arc::clone(&bundle)));
    }
    let shared = replay::shared(config, bundle, partitions)?;
    let (worker, running) = start_worker(config, store, shared, (&metrics, &health))?;
    let stop = shutdown.clone();
    let stop = move || stop.requested();
    let consumer = source::spawn(&config.kafka, metrics.source.clone(), worker, stop)?;
    let kafka = &config.kafka;
    tracing::info!(
        brokers = kafka.brokers,
        topic = kafka.input_topic,
        group = kafka.consumer_group,
        "processing"
    );
    let closing = Duration::from_millis(kafka.shutdown_timeout_ms) + CONSUMER_CLOSE_WITHIN;
    let watched = watch(&consumer, &running, &shutdown, &health, closing).await;
    // The thread has ended, or is given up; either way nothing more is handed over.
    let ended = watched.and_then(|()| {
        consumer
            .join()
            .map_err(|_| anyhow!("the consumer thread panicked; see the log"))
    });
    let left = running.close(Instant::now() + SINKS_CLOSE_WITHIN).await;
    let report = ended??;
    if !left.is_complete() {
        tracing::warn!(?left, "not everything was written; it will be read again");
    }
    tracing::info!(
        records = report.records,
        committed = report.committed,
        "stopped"
    );
    Ok(())
}

fn start_worker(
    config: &Config,
    store: Option<Store>,
    shared: Shared,
    (metrics, health): (&Metrics, &Arc<Health>),
) -> anyhow::Result<(Worker, RunningSinks)> {
    let (acks_sender, acks) = bounded(ACKS_QUEUE_MAX);
    let (sinks, running) = Sinks::start(SinksSetup {
        config: &config.sinks(),
        store: store.clone(),
        kafka: &config.kafka.producer_config(),
        clock: Clock::system(),
        acks: acks_sender,
        metrics: metrics.sink.clone(),
        runtime: Handle::current(),
    })?;
    let worker = Worker::new(WorkerParts {
        settings: WorkerSettings {
            window: config.window.window_config(),
            max_alert_age: MAX_ALERT_AGE,
            idle_final: Duration::from_secs(config.window.idle_final_s.into()),
        },
        shared,
        sinks,
        acks,
        mutes: mutes::watch(store.clone()),
        desk: RecoveryDesk::new(store, Handle::current()),
        clock: Clock::system(),
        health: Arc::clone(health),
        metrics: metrics.pipeline.clone(),
    });
    Ok((worker, running))
}

/// Returns once the consumer thread has ended.
///
/// # Errors
/// Returns an error if a sink died, or if the consumer does not end within `closing` after a stop
/// was asked for.
async fn watch(
    consumer: &ConsumerThread,
    running: &RunningSinks,
    shutdown: &Shutdown,
    health: &Health,
    closing: Duration,
) -> anyhow::Result<()> {
    let reopen_asked = shutdown.reopen();
    let mut reopened = *reopen_asked.borrow();
    let mut stop_deadline = None;
    while !consumer.is_finished() {
        tokio::time::sleep(WATCH_EVERY).await;
        if let Some(sink) = running.dead_sink() {
            bail!("the {sink} sink ended by itself; see the log");
        }
        let asked = *reopen_asked.borrow();
        if asked != reopened {
            reopened = asked;
            running.reopen().request();
        }
        if shutdown.requested() {
            health.set_stopping();
            let deadline = *stop_deadline.get_or_insert_with(|| Instant::now() + closing);
            if Instant::now() > deadline {
                bail!(
                    "the Kafka consumer did not close within {} s; leaving it behind",
                    closing.as_secs()
                );
            }
        }
    }
    Ok(())
}

/// Opens the store and checks its schema. A server that cannot be reached now is waited for by the
/// partitions; one that answers with a refusal ends the start.
async fn open_store(config: &Config) -> anyhow::Result<Option<Store>> {
    let Some(store) = Store::configured(&config.store, &config.kafka.consumer_group)? else {
        tracing::warn!("no store: rows are kept nowhere, and baselines start cold after a restart");
        return Ok(None);
    };
    match migrate::check(&config.store).await {
        Ok(()) => warn_of_other_groups(&store, &config.kafka.input_topic).await,
        Err(error) if error.is_unreachable() => {
            let server = config.store.server();
            let error = Chain(&error);
            tracing::warn!(%server, %error, "the store cannot be reached yet; partitions wait");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Some(store))
}

/// Makes the model known to the store, and says so where that names another as active; however long
/// the store is away, nothing waits for it.
async fn announce_model(store: Store, topic: String, bundle: Arc<Bundle>) {
    register_model(&store, &bundle).await;
    while let Err(error) = learn::warn_of_another(&store, &topic, &bundle).await {
        tracing::warn!(%error, "cannot ask the store which model is active");
        tokio::time::sleep(REGISTER_MODEL_EVERY).await;
    }
}

/// Puts the model into the store's registry.
async fn register_model(store: &Store, bundle: &Bundle) {
    loop {
        match store.register_model(bundle).await {
            Ok(true) => {
                tracing::info!(checksum = %bundle.checksum(), "the model is new to the registry");
                return;
            }
            Ok(false) => return,
            Err(error) => {
                let error = anyhow!(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot register the model yet"
                );
            }
        }
        tokio::time::sleep(REGISTER_MODEL_EVERY).await;
    }
}

/// Says so where another consumer group has written rows of the same streams.
async fn warn_of_other_groups(store: &Store, topic: &str) {
    match store.other_groups(topic).await {
        Ok(groups) if groups.is_empty() => {}
        Ok(groups) => tracing::warn!(
            topic,
            ?groups,
            "other consumer groups have written rows of this topic to this database; if one of \
             them still runs, the two overwrite each other's: give each a database of its own"
        ),
        // The partitions will ask for more, and wait.
        Err(error) => tracing::debug!(%error, "cannot look for other consumer groups"),
    }
}

/// Asks the store now and then whether it answers, for `/readyz`.
async fn probe_store(store: Option<Store>, health: Arc<Health>) {
    let Some(store) = store else {
        health.set_store_up(true);
        return;
    };
    loop {
        health.set_store_up(store.ping().await.is_ok());
        tokio::time::sleep(PROBE_STORE_EVERY).await;
    }
}

/// Creates or updates the tables, and prints what was done.
///
/// # Errors
/// Returns an error if the server cannot be reached or refuses.
pub fn migrate(config: &Config, args: &MigrateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let retention = args.retention.map(|it| match it {
        OnOff::Off => Retention::Off,
        OnOff::On => Retention::On,
    });
    let report = runtime()?.block_on(migrate::migrate(
        &config.store,
        MigrateOptions {
            retention,
            roles: args.roles,
        },
    ))?;
    if report.applied.is_empty() {
        writeln!(
            out,
            "{}: up to date at version {}",
            config.store.server(),
            report.version
        )?;
    } else {
        for name in &report.applied {
            writeln!(out, "applied {name}")?;
        }
        writeln!(
            out,
            "{}: now at version {}",
            config.store.server(),
            report.version
        )?;
    }
    writeln!(out, "{}", report.timescale)?;
    Ok(())
}

//! Connections to PostgreSQL: TLS, timeouts, the pool.

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::Client;
use tracing::debug;

use super::{StoreConfig, StoreError};

/// What is said of a server that accepts connections and does not go on.
const NO_ANSWER: &str = "no answer within `connect_timeout`";

/// Returns a pool that connects when first asked.
pub(super) fn pool(config: &StoreConfig) -> Result<Pool, StoreError> {
    let manager = Manager::from_config(
        config.postgres()?,
        tls(config)?,
        // A connection is probed before it is handed out: one that died while idle costs a round
        // trip, not a batch.
        ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        },
    );
    let timeout = Some(config.connect_timeout);
    let (setup, patience) = (
        timeout_statement(config.statement_timeout),
        config.connect_timeout,
    );
    Pool::builder(manager)
        .max_size(config.pool_size)
        .wait_timeout(timeout)
        .create_timeout(timeout)
        .recycle_timeout(timeout)
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(move |client, _| {
            let setup = setup.clone();
            Box::pin(async move {
                // The pool's own timeouts end where its hooks begin.
                tokio::time::timeout(patience, client.batch_execute(&setup))
                    .await
                    .map_err(|_| HookError::message(NO_ANSWER))?
                    .map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(|_| StoreError::Setting {
            field: "pool_size",
            reason: "makes no pool",
        })
}

/// Opens one connection outside the pool, without a statement timeout.
pub(crate) async fn connect(config: &StoreConfig) -> Result<Client, StoreError> {
    let (settings, tls) = (config.postgres()?, tls(config)?);
    // The driver's own timeout ends where the server has accepted; a frozen one gets no further.
    let connecting = tokio::time::timeout(config.connect_timeout, settings.connect(tls));
    let connected = connecting.await.map_err(|_| StoreError::Unreachable {
        server: config.server(),
        source: NO_ANSWER.into(),
    })?;
    let (client, connection) = connected
        .map_err(|source| StoreError::from_postgres(&config.server(), "connect", source))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Whoever uses the client gets the error, too.
            debug!(%error, "connection to PostgreSQL ended");
        }
    });
    Ok(client)
}

/// Turns an error of the pool into one of the store.
pub(super) fn pool_error(config: &StoreConfig, error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(source) | PoolError::PostCreateHook(HookError::Backend(source)) => {
            StoreError::from_postgres(&config.server(), "connect", source)
        }
        other => StoreError::Unreachable {
            server: config.server(),
            source: other.into(),
        },
    }
}

fn timeout_statement(timeout: Duration) -> String {
    format!("SET statement_timeout = {}", timeout.as_millis())
}

fn tls(config: &StoreConfig) -> Result<MakeTlsConnector, StoreError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(StoreError::Tls)?;
    if let Some(path) = &config.ca_file {
        builder.set_ca_file(path).map_err(StoreError::Tls)?;
    }
    if let (Some(cert), Some(key)) = (&config.client_cert_file, &config.client_key_file) {
        let pem = SslFiletype::PEM;
        let set = builder.set_certificate_chain_file(cert);
        set.and_then(|()| builder.set_private_key_file(key, pem))
            .and_then(|()| builder.check_private_key())
            .map_err(StoreError::Tls)?;
    }
    let verifies = config.verifies();
    if !verifies {
        builder.set_verify(SslVerifyMode::NONE);
    }
    let mut connector = MakeTlsConnector::new(builder.build());
    connector.set_callback(move |connection, _| {
        connection.set_verify_hostname(verifies);
        Ok(())
    });
    Ok(connector)
}

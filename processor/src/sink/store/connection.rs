//! Connections to PostgreSQL: TLS, timeouts, the pool.

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, QueueMode, RecyclingMethod, Runtime,
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
        // A connection used of late knows the statements; in turns each would have to parse and plan them.
        .queue_mode(QueueMode::Lifo)
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{secret::Secret, sink::store::Store};

    /// What a server says once it has let a role in: authenticated, ready.
    const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

    /// Settings for a server that takes everything and says `greeting`, once.
    async fn silent_after(greeting: &'static [u8]) -> StoreConfig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut streams = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                stream.write_all(greeting).await.unwrap();
                streams.push(stream);
            }
        });
        StoreConfig {
            url: Some(Secret::new(format!(
                "postgres://me@{address}/logs?sslmode=disable"
            ))),
            connect_timeout: Duration::from_millis(50),
            statement_timeout: Duration::from_millis(50),
            ..StoreConfig::default()
        }
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_is_unreachable() {
        for greeting in [&b""[..], LET_IN] {
            let config = silent_after(greeting).await;
            let store = Store::new(&config, "group").unwrap();
            let error = store.ping().await.unwrap_err();
            assert!(error.is_unreachable(), "pool, {greeting:?}: {error}");
            let error = crate::sink::migrate::check(&config).await.unwrap_err();
            assert!(error.is_unreachable(), "check, {greeting:?}: {error}");
        }
    }
}

//! Settings of the store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio_postgres::Config as PgConfig;

use super::StoreError;
use crate::secret::Secret;

/// Where rows go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// PostgreSQL, with TimescaleDB where it is installed.
    #[default]
    Postgres,
    /// Nowhere: results go to the topic and the alarm file only, and rolling baselines start cold
    /// after every restart.
    None,
}

/// Which raw lines are stored in `log_events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawLinesKept {
    /// None.
    #[default]
    Off,
    /// Those of level `ERROR` and `FATAL`.
    Errors,
    /// Those of every level.
    All,
}

/// Whether the connection is encrypted, and whether the server is known by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server offers it.
    Prefer,
    /// Encrypted; the certificate is checked only when `ca_file` is given.
    Require,
    /// Encrypted, certificate and host name checked against `ca_file` or the system's authorities.
    VerifyFull,
}

/// How the store is reached and how much is written at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `postgres`, or `none` to keep nothing in a database. Default: `postgres`.
    pub kind: StoreKind,
    /// `postgres://user:password@host:port/database`; stands in for the five fields below. Its own
    /// `sslmode` may be `disable`, `prefer` or `require`. Default: none.
    pub url: Option<Secret>,
    /// File that holds the URL (a mounted secret). Default: none.
    pub url_file: Option<PathBuf>,
    /// Host name, address or directory of a Unix socket. Default: `localhost`.
    pub host: String,
    /// Port. Default: 5432, PostgreSQL's own.
    pub port: u16,
    /// Database. Default: `logguard`.
    pub dbname: String,
    /// Role. Default: `logguard`.
    pub user: String,
    /// Password; better kept in `password_file`. Default: none.
    pub password: Option<Secret>,
    /// File that holds the password (a mounted secret). Default: none.
    pub password_file: Option<PathBuf>,
    /// `disable`, `prefer`, `require` or `verify-full`. Default: what `url` says, else `prefer`.
    pub sslmode: Option<SslMode>,
    /// PEM file of the authorities that may have signed the server's certificate. Default: none.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate and those between it and its authority, for servers
    /// that ask for one; goes with `client_key_file`. Default: none.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file of the key to it. Default: none.
    pub client_key_file: Option<PathBuf>,
    /// Connections held at most. Default: 4: one writes, the others claim partitions and answer
    /// health checks.
    pub pool_size: usize,
    /// Longest wait for a connection. Default: 5 s, so that a dead server is noticed well within
    /// Kafka's session timeout.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest run of one statement, on both sides. Default: 30 s, a window's length.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
    /// How long an assigned partition waits, paused, for a store that does not answer; then it
    /// starts without baselines, rows provisional and offsets held, until the store is back.
    /// Default: 60 s, after which alarms matter more than baselines.
    #[serde(with = "humantime_serde")]
    pub claim_patience: Duration,
    /// Rows written in one statement. Default: 500, beyond which a larger batch gains little.
    pub batch_rows_max: usize,
    /// Rows that wait for the store before reading pauses. Default: 2,000: more than an hour of ten
    /// partitions, and a bounded share of memory when windows are large.
    pub buffer_rows_max: usize,
    /// Raw lines stored in table `log_events`: `off`, `errors` or `all`. Best effort: lines are
    /// dropped, and counted, while the database is slow or away. Default: `off`.
    pub log_events: RawLinesKept,
    /// Share of those lines that is stored, above 0 and at most 1. Default: 1.
    pub log_events_fraction: f64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: StoreKind::default(),
            url: None,
            url_file: None,
            host: "localhost".to_owned(),
            port: 5432,
            dbname: "logguard".to_owned(),
            user: "logguard".to_owned(),
            password: None,
            password_file: None,
            sslmode: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            pool_size: 4,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            claim_patience: Duration::from_secs(60),
            batch_rows_max: 500,
            buffer_rows_max: 2_000,
            log_events: RawLinesKept::default(),
            log_events_fraction: 1.0,
        }
    }
}

impl StoreConfig {
    /// Checks the settings without connecting.
    ///
    /// # Errors
    /// Names the first setting that is out of range, unreadable or contradicts another.
    pub fn validate(&self) -> Result<(), StoreError> {
        let positive = [
            ("pool_size", self.pool_size),
            ("batch_rows_max", self.batch_rows_max),
            ("buffer_rows_max", self.buffer_rows_max),
        ];
        if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(invalid(field, "must be at least 1"));
        }
        for (field, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("statement_timeout", self.statement_timeout),
            ("claim_patience", self.claim_patience),
        ] {
            if timeout.is_zero() {
                return Err(invalid(field, "must be longer than 0"));
            }
        }
        let fraction = self.log_events_fraction;
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(invalid(
                "log_events_fraction",
                "must be above 0 and at most 1",
            ));
        }
        if self.password.is_some() && self.password_file.is_some() {
            return Err(invalid("password", "is given twice, as is `password_file`"));
        }
        if self.url.is_some() && self.url_file.is_some() {
            return Err(invalid("url", "is given twice, as is `url_file`"));
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            return Err(invalid(
                "client_cert_file",
                "and `client_key_file` go together",
            ));
        }
        self.postgres().map(|_| ())
    }

    /// Returns `user@host:port/database`, for messages; never the password.
    #[must_use]
    pub fn server(&self) -> String {
        let Ok(config) = self.parsed() else {
            return "an unreadable URL".to_owned();
        };
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().unwrap_or("?");
        let dbname = config.get_dbname().unwrap_or(user);
        format!("{user}@{host}:{port}/{dbname}")
    }

    /// Returns the password, wherever it is given; `None` also while it cannot be read.
    #[must_use]
    pub fn effective_password(&self) -> Option<Secret> {
        let config = self.postgres().ok()?;
        let password = String::from_utf8_lossy(config.get_password()?);
        Some(Secret::new(password))
    }

    /// Returns the files that hold secrets, with the settings that name them.
    pub fn secret_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("store.url_file", &self.url_file),
            ("store.password_file", &self.password_file),
            ("store.client_key_file", &self.client_key_file),
        ];
        let given = files.into_iter();
        given.filter_map(|(name, path)| path.as_deref().map(|path| (name, path)))
    }

    /// Returns whether the server's certificate is checked.
    pub(super) fn verifies(&self) -> bool {
        self.ca_file.is_some() || self.sslmode == Some(SslMode::VerifyFull)
    }

    /// Returns the connection settings, password included.
    pub(super) fn postgres(&self) -> Result<PgConfig, StoreError> {
        let mut config = self.parsed()?;
        if let Some(path) = &self.password_file {
            config.password(read_secret(path)?.expose());
        } else if let Some(password) = &self.password {
            config.password(password.expose());
        }
        if let Some(mode) = self.sslmode {
            config.ssl_mode(match mode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
        }
        if config.get_application_name().is_none() {
            config.application_name("logguard");
        }
        config
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(self.statement_timeout)
            .keepalives_idle(self.statement_timeout);
        Ok(config)
    }

    fn parsed(&self) -> Result<PgConfig, StoreError> {
        let file = self.url_file.as_deref().map(read_secret).transpose()?;
        if let Some(url) = self.url.as_ref().or(file.as_ref()) {
            // The parser's own message may quote the URL, password included.
            return url.expose().parse().map_err(|_| {
                invalid(
                    "url",
                    "is not of the form `postgres://user:password@host:port/database`",
                )
            });
        }
        let mut config = PgConfig::new();
        config
            .host(&self.host)
            .port(self.port)
            .dbname(&self.dbname)
            .user(&self.user);
        Ok(config)
    }
}

fn read_secret(path: &Path) -> Result<Secret, StoreError> {
    Secret::from_file(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })
}

fn invalid(field: &'static str, reason: &'static str) -> StoreError {
    StoreError::Setting { field, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_name_the_server() {
        let config = StoreConfig::default();
        config.validate().unwrap();
        assert_eq!(config.server(), "logguard@localhost:5432/logguard");
    }

    #[test]
    fn the_url_is_used_but_never_shown() {
        let config: StoreConfig =
            serde_json::from_str(r#"{"url":"postgres://me:hunter2@db:6000/logs"}"#).unwrap();
        let pg = config.postgres().unwrap();
        assert_eq!(pg.get_password(), Some(b"hunter2".as_slice()));
        assert_eq!(config.server(), "me@db:6000/logs");
        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_bad_url_is_refused_without_quoting_it() {
        let config = StoreConfig {
            url: Some(Secret::new("postgres://me:hunter2@db:port/logs")),
            ..StoreConfig::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "store setting `url` is not of the form `postgres://user:password@host:port/database`"
        );
    }

    #[test]
    fn files_give_password_and_url() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "pass word\n").unwrap();
        let mut config = StoreConfig {
            password_file: Some(path.clone()),
            ..StoreConfig::default()
        };
        let pg = config.postgres().unwrap();
        assert_eq!(pg.get_password(), Some(b"pass word".as_slice()));

        let url = dir.path().join("url");
        std::fs::write(&url, "postgres://me:hunter2@db:6000/logs\n").unwrap();
        let by_url = StoreConfig {
            url_file: Some(url),
            ..StoreConfig::default()
        };
        let pg = by_url.postgres().unwrap();
        assert_eq!(pg.get_password(), Some(b"hunter2".as_slice()));
        assert_eq!(by_url.server(), "me@db:6000/logs");

        config.password = Some(Secret::new("x"));
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("`password_file`"), "{error}");

        config.password = None;
        std::fs::remove_file(&path).unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn zeroes_and_unknown_settings_are_refused() {
        for json in [
            r#"{"pool_size":0}"#,
            r#"{"batch_rows_max":0}"#,
            r#"{"buffer_rows_max":0}"#,
            r#"{"connect_timeout":"0s"}"#,
            r#"{"statement_timeout":"0s"}"#,
            r#"{"log_events_fraction":0}"#,
            r#"{"log_events_fraction":1.5}"#,
        ] {
            let config: StoreConfig = serde_json::from_str(json).unwrap();
            assert!(config.validate().is_err(), "{json}");
        }
        assert!(serde_json::from_str::<StoreConfig>(r#"{"hots":"db"}"#).is_err());
    }
}

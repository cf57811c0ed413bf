//! What can go wrong with the store, and which of it is worth another try.

use std::{error::Error as StdError, path::PathBuf};

use tokio_postgres::Error as PgError;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A setting is out of range or contradicts another.
    #[error("store setting `{field}` {reason}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file that a setting names cannot be read.
    #[error("cannot read `{}`, which the store's settings name", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error(
        "cannot set up TLS for the store; check `ca_file`, `client_cert_file` and \
         `client_key_file`"
    )]
    Tls(#[source] openssl::error::ErrorStack),
    /// The server does not answer, or ended the connection.
    #[error("cannot reach PostgreSQL as {server}; check that it runs and accepts connections")]
    Unreachable {
        /// `user@host:port/database`.
        server: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The server answers, and no TLS connection comes about.
    #[error(
        "no trusted TLS connection to PostgreSQL as {server}; check `sslmode` and `ca_file`, and \
         that the server's certificate is valid and made out to this host name"
    )]
    Untrusted {
        /// `user@host:port/database`.
        server: String,
        /// Why.
        source: PgError,
    },
    /// The server does not let this role in.
    #[error("PostgreSQL refused {server}; check role, password, database and `sslmode`")]
    Refused {
        /// `user@host:port/database`.
        server: String,
        /// Why.
        source: PgError,
    },
    /// The role may not do this.
    #[error("the role of {server} lacks the right to {action}")]
    Denied {
        /// `user@host:port/database`.
        server: String,
        /// What was tried.
        action: &'static str,
        /// Why.
        source: PgError,
    },
    /// The statement failed.
    #[error("failed to {action} on {server}")]
    Statement {
        /// `user@host:port/database`.
        server: String,
        /// What was tried.
        action: &'static str,
        /// Why.
        source: PgError,
    },
    /// A migration failed; those before it stay applied.
    #[error("failed to {action} on {server}")]
    Migration {
        /// `user@host:port/database`.
        server: String,
        /// What was tried.
        action: &'static str,
        /// The server went away meanwhile.
        unreachable: bool,
        /// Which migration, and why.
        source: Box<refinery::Error>,
    },
    /// The database cannot hold every text.
    #[error(
        "the database of {server} has encoding {encoding}; logs need one created with ENCODING \
         'UTF8'"
    )]
    Encoding {
        /// `user@host:port/database`.
        server: String,
        /// The encoding found.
        encoding: String,
    },
    /// The schema is not there, or older than this program needs.
    #[error(
        "the database of {server} has {}, version {needed} is needed: run `logguard migrate`",
        found.map_or_else(|| "no logguard schema".to_owned(), |it| format!("schema version {it}"))
    )]
    SchemaOutdated {
        /// `user@host:port/database`.
        server: String,
        /// The version found.
        found: Option<i32>,
        /// The version this program needs.
        needed: i32,
    },
    /// Another process is maintaining the database.
    #[error("the database of {server} is being maintained by another process; wait for its end")]
    Busy {
        /// `user@host:port/database`.
        server: String,
    },
    /// A model cannot be packed, or what is registered under its checksum cannot be used.
    #[error("cannot use model {checksum} in the registry of {server}")]
    Model {
        /// `user@host:port/database`.
        server: String,
        /// The model's checksum.
        checksum: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A newer program migrated the database.
    #[error(
        "the database of {server} has schema version {found}, newer than the {known} this program \
         knows: migrate with the newer logguard"
    )]
    SchemaNewer {
        /// `user@host:port/database`.
        server: String,
        /// The version found.
        found: i32,
        /// The newest version this program knows.
        known: i32,
    },
    /// A migration that was applied is not the one this program carries.
    #[error(
        "the schema of {server} was made by other migrations than this program carries: {detail}"
    )]
    SchemaDiverged {
        /// `user@host:port/database`.
        server: String,
        /// Which.
        detail: String,
    },
}

impl StoreError {
    /// Returns whether the server could not be reached, as opposed to answering with a refusal.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Migration {
                    unreachable: true,
                    ..
                }
        )
    }

    /// Returns whether the server refused what it was given for what it is, so that trying again
    /// cannot help.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Statement { source, .. } if is_refused(source))
    }

    /// Sorts an error of the driver by what to do about it.
    pub(crate) fn from_postgres(server: &str, action: &'static str, source: PgError) -> Self {
        let server = server.to_owned();
        let Some(code) = source.code().map(|it| it.code().to_owned()) else {
            if is_distrust(&source) {
                return Self::Untrusted { server, source };
            }
            return Self::Unreachable {
                server,
                source: source.into(),
            };
        };
        match code.as_str() {
            "42501" => Self::Denied {
                server,
                action,
                source,
            },
            // 28: authorisation; 3D: no such database; 42704 on connecting: no such role.
            code if code.starts_with("28") || code.starts_with("3D") => {
                Self::Refused { server, source }
            }
            // Connection lost, no more connections, shutting down or starting up.
            code if code.starts_with("08") || code == "53300" || code.starts_with("57P") => {
                Self::Unreachable {
                    server,
                    source: source.into(),
                }
            }
            _ => Self::Statement {
                server,
                action,
                source,
            },
        }
    }
}

/// Returns whether the two sides could not agree on TLS, as opposed to a connection that broke
/// while they were about it. The driver tells its own kind of an error in words only.
fn is_distrust(error: &PgError) -> bool {
    let causes = || std::iter::successors(error.source(), |&cause| cause.source());
    let broken = |cause: &(dyn StdError + 'static)| {
        cause.is::<std::io::Error>()
            || cause
                .downcast_ref::<openssl::ssl::Error>()
                .is_some_and(|error| error.code() == openssl::ssl::ErrorCode::SYSCALL)
    };
    error
        .to_string()
        .starts_with("error performing TLS handshake")
        && !causes().any(broken)
}

/// Returns whether the server refused a row for what it is, so that trying again cannot help: data
/// exceptions (22), constraint violations (23), a row too large (54). Everything else, missing
/// tables and rights included, is worth waiting for.
pub(super) fn is_refused(error: &PgError) -> bool {
    error.code().is_some_and(|code| {
        matches!(
            code.code().as_bytes(),
            [b'2', b'2' | b'3', ..] | [b'5', b'4', ..]
        )
    })
}

/// Displays an error with all its causes, one after the other.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

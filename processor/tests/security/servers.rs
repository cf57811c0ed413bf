//! A Kafka broker and a PostgreSQL cluster of this test's own, with every listener it needs, each
//! with certificates made here. Stopped when dropped.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::certificates::{Identity, Subject};

pub(crate) const HOST: &str = "127.0.0.1";
pub(crate) const USER: &str = "logguard";
pub(crate) const PASSWORD: &str = "s3cure & long";

/// The authorities and what they signed.
pub(crate) struct Certificates {
    dir: TempDir,
    /// Made out to [`HOST`].
    server: Identity,
    /// Made out to [`HOST`], and past.
    expired: Identity,
    /// Made out to somebody else.
    stranger: Identity,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let dir = open_dir();
        let authority = Identity::authority("authority");
        authority.write_certificate(&dir.path().join("ca.pem"));
        Identity::authority("another").write_certificate(&dir.path().join("other-ca.pem"));
        let sign = |common_name, address, valid_days| {
            authority.sign(&Subject {
                common_name,
                address: Some(address),
                valid_days,
            })
        };
        let client = sign(USER, "client.example", (-1, 30));
        client.write_certificate(&dir.path().join("client.pem"));
        client.write_key(&dir.path().join("client.key"));
        Self {
            server: sign("server", HOST, (-1, 30)),
            expired: sign("server", HOST, (-2, -1)),
            stranger: sign("stranger", "elsewhere.example", (-1, 30)),
            dir,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// A directory that a server run by another user can enter.
fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn script(name: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut command = Command::new("bash");
    command.arg(scripts.join(name));
    command
}

fn output_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A broker with a plain listener for the test and secured ones for the program.
pub(crate) struct SecureKafka {
    dir: TempDir,
    /// Plain text.
    pub(crate) plain: String,
    /// SCRAM over TLS.
    pub(crate) secure: String,
    /// TLS with a certificate for another host.
    pub(crate) stranger: String,
    /// TLS with a certificate that is past.
    pub(crate) expired: String,
    /// TLS that asks for the client's certificate.
    pub(crate) mutual: String,
}

impl SecureKafka {
    pub(crate) fn start(certificates: &Certificates) -> Self {
        let dir = open_dir();
        let listeners = [
            ("secure", "SASL_SSL", &certificates.server),
            ("stranger", "SSL", &certificates.stranger),
            ("expired", "SSL", &certificates.expired),
            ("mutual", "SSL", &certificates.server),
        ];
        let mut properties = "sasl.enabled.mechanisms=SCRAM-SHA-512\n\
            listener.name.secure.scram-sha-512.sasl.jaas.config=\
            org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
            listener.name.mutual.ssl.client.auth=required\n\
            listener.name.mutual.ssl.truststore.type=PEM\n"
            .to_owned();
        let ca = certificates.path("ca.pem");
        properties += &format!("listener.name.mutual.ssl.truststore.location={ca}\n");
        let mut command = script("kafka.sh");
        command.args(["start", "--test", "--dir"]).arg(dir.path());
        let mut addresses = Vec::new();
        for (name, protocol, identity) in listeners {
            let store = dir.path().join(format!("{name}.pem"));
            identity.write_both(&store);
            let (store, port) = (store.display(), free_port());
            properties += &format!(
                "listener.name.{name}.ssl.keystore.type=PEM\n\
                 listener.name.{name}.ssl.keystore.location={store}\n"
            );
            command.args(["--listener", &format!("{name}:{protocol}:{port}")]);
            addresses.push(format!("{HOST}:{port}"));
        }
        let file = dir.path().join("security.properties");
        fs::write(&file, properties).unwrap();
        command.arg("--extra-properties").arg(file);
        command.args(["--scram", &format!("{USER}={PASSWORD}")]);
        for topic in ["log-events", "anomaly-results", "log-events.dlq"] {
            command.args(["--topic", &format!("{topic}:1")]);
        }
        let said = output_of(command);
        let plain = said.trim().strip_prefix("bootstrap=").unwrap().to_owned();
        let [secure, stranger, expired, mutual] = addresses.try_into().unwrap();
        Self {
            dir,
            plain,
            secure,
            stranger,
            expired,
            mutual,
        }
    }
}

impl Drop for SecureKafka {
    fn drop(&mut self) {
        let mut command = script("kafka.sh");
        command.args(["stop", "--dir"]).arg(self.dir.path());
        // What does not stop is seen in the list of processes; the test has its outcome.
        command.output().ok();
    }
}

/// A cluster that lets the superuser in as it is, and everybody else over TLS only: `logguard`
/// with a password, `client` with a certificate.
pub(crate) struct SecurePostgres {
    dir: TempDir,
    pub(crate) port: u16,
    superuser: String,
    server: Vec<(&'static str, PathBuf)>,
}

impl SecurePostgres {
    pub(crate) async fn start(certificates: &Certificates) -> Self {
        let dir = open_dir();
        let mut command = script("postgres.sh");
        command.args(["start", "--test", "--dir"]).arg(dir.path());
        let said = output_of(command);
        let superuser = said
            .lines()
            .find_map(|line| line.strip_prefix("superuser_url="))
            .unwrap();
        let parsed: tokio_postgres::Config = superuser.parse().unwrap();
        let data = dir.path().join("data");
        let owner = fs::metadata(&data).unwrap();
        let mut server = Vec::new();
        for (name, identity) in [
            ("server", &certificates.server),
            ("stranger", &certificates.stranger),
            ("expired", &certificates.expired),
        ] {
            let (cert, key) = (
                data.join(format!("{name}.pem")),
                data.join(format!("{name}.key")),
            );
            identity.write_certificate(&cert);
            identity.write_key(&key);
            for file in [&cert, &key] {
                std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
            }
            server.push((name, data.join(name)));
        }
        fs::copy(certificates.path("ca.pem"), data.join("ca.pem")).unwrap();
        fs::set_permissions(data.join("ca.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        let rules = "host all postgres 127.0.0.1/32 trust\n\
                     hostssl logguard logguard 127.0.0.1/32 scram-sha-256\n\
                     hostssl logguard client 127.0.0.1/32 cert map=clients\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        fs::write(data.join("pg_ident.conf"), "clients logguard client\n").unwrap();
        let made = Self {
            dir,
            port: parsed.get_ports()[0],
            superuser: superuser.to_owned(),
            server,
        };
        let password = PASSWORD.replace('\'', "''");
        made.sql(&[
            "ALTER SYSTEM SET ssl = on",
            "ALTER SYSTEM SET ssl_ca_file = 'ca.pem'",
            "ALTER SYSTEM SET password_encryption = 'scram-sha-256'",
            "SELECT pg_reload_conf()",
            "CREATE ROLE client LOGIN IN ROLE logguard",
            &format!("ALTER ROLE {USER} PASSWORD '{password}'"),
        ])
        .await;
        made.show("server").await;
        made
    }

    /// Makes the server show this certificate from now on.
    pub(crate) async fn show(&self, name: &str) {
        let (_, path) = self.server.iter().find(|(it, _)| *it == name).unwrap();
        let path = path.display();
        self.sql(&[
            &format!("ALTER SYSTEM SET ssl_cert_file = '{path}.pem'"),
            &format!("ALTER SYSTEM SET ssl_key_file = '{path}.key'"),
            "SELECT pg_reload_conf()",
        ])
        .await;
        // The postmaster reloads by and by: until a connection of later sees it.
        for _ in 0..500 {
            let shown = self.query("SHOW ssl_cert_file").await;
            if shown.contains(&format!("/{name}.pem")) && self.query("SHOW ssl").await == "on" {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("PostgreSQL does not take its certificate");
    }

    /// Returns the first column of the first row, on a connection of its own.
    pub(crate) async fn query(&self, sql: &str) -> String {
        self.query_in("postgres", sql).await
    }

    pub(crate) async fn query_in(&self, database: &str, sql: &str) -> String {
        let url = crate::common::with_database(&self.superuser, database);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn sql(&self, statements: &[&str]) {
        let (client, connection) = tokio_postgres::connect(&self.superuser, NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        for statement in statements {
            client.batch_execute(statement).await.unwrap();
        }
    }
}

impl Drop for SecurePostgres {
    fn drop(&mut self) {
        let mut command = script("postgres.sh");
        command.args(["stop", "--dir"]).arg(self.dir.path());
        command.output().ok();
    }
}

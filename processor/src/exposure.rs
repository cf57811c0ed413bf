//! Where secrets lie open: on the command line, which every user of the machine may read, and in
//! files that anyone may read. Said once at the start; nothing is refused for it.

use std::{fs, path::Path};

use crate::{config::Config, source::is_secret};

/// Returns what is exposed and what to do about it, a sentence each. `file` is the configuration
/// file that was read, `arguments` are those of this process.
#[must_use]
pub fn exposures(
    config: &Config,
    file: Option<&Path>,
    arguments: impl Iterator<Item = String>,
) -> Vec<String> {
    let secrets = secrets(config);
    let mut found = Vec::new();
    if arguments
        .into_iter()
        .any(|argument| names_secret(&argument, &secrets))
    {
        found.push(
            "a secret stands on the command line, where every user of this machine can read it: \
             give it in the environment or in a file (DATABASE_URL, \
             LOGGUARD_STORE__PASSWORD_FILE, LOGGUARD_KAFKA__PROPERTIES__SASL__PASSWORD_FILE)"
                .to_owned(),
        );
    }
    let holds_secret = |file: &&Path| {
        let text = fs::read_to_string(file).unwrap_or_default();
        secrets.iter().any(|secret| text.contains(secret))
    };
    let files = config.store.secret_files().map(|(_, file)| file);
    let files = files.chain(config.kafka.properties.secret_files().map(|(_, file)| file));
    for file in files.chain(file.filter(holds_secret)) {
        if is_open(file) {
            let file = file.display();
            found.push(format!(
                "`{file}` holds a secret and anyone on this machine may read it: chmod 600 `{file}`"
            ));
        }
    }
    found
}

/// Returns the secrets in use, the shortest left out: `x` is in every text.
fn secrets(config: &Config) -> Vec<String> {
    const BYTES_MIN: usize = 4;
    let password = config.store.effective_password();
    let password = password.iter().map(|password| password.expose().to_owned());
    let properties = config.kafka.properties.secrets();
    password
        .chain(properties.map(|(_, value)| value.to_owned()))
        .filter(|secret| secret.len() >= BYTES_MIN)
        .collect()
}

/// Whether an argument holds one of the secrets, or a property that is one.
fn names_secret(argument: &str, secrets: &[String]) -> bool {
    let property = argument.strip_prefix("--kafka=").unwrap_or(argument);
    let by_name = property
        .split_once('=')
        .is_some_and(|(key, _)| key.contains('.') && is_secret(key));
    by_name || secrets.iter().any(|secret| argument.contains(secret))
}

#[cfg(unix)]
fn is_open(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const READ_BY_OTHERS: u32 = 0o004;
    fs::metadata(file).is_ok_and(|found| found.permissions().mode() & READ_BY_OTHERS != 0)
}

#[cfg(not(unix))]
fn is_open(_file: &Path) -> bool {
    false
}

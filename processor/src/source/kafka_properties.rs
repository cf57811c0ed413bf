//! librdkafka settings that are passed through, secrets kept out of sight.
//!
//! `sasl.password_file = "/run/secrets/kafka"` stands for `sasl.password` with what is in the
//! file; so for every name. No property of librdkafka's own ends in `_file`.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use super::KafkaConfigError;
use crate::secret::Secret;

/// librdkafka settings by name. Secrets are redacted wherever this is shown or serialised.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaProperties(pub BTreeMap<String, String>);

/// Stands in for a secret.
const REDACTED: &str = "<redacted>";

impl KafkaProperties {
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        // What came from a file is shown by the file's name.
        let own = self
            .0
            .iter()
            .filter(|(key, _)| !self.0.contains_key(&file_key(key)));
        own.map(|(key, value)| {
            let hidden = is_secret(key) || (value.contains("://") && value.contains('@'));
            let shown = if hidden { REDACTED } else { value };
            (key.as_str(), shown)
        })
    }

    /// Returns the settings for librdkafka.
    pub(super) fn passed(&self) -> impl Iterator<Item = (&str, &str)> {
        let passed = self.0.iter().filter(|(key, _)| !key.ends_with(FILE_SUFFIX));
        passed.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Reads the files that settings name, once, and keeps what is in them, less the line ends
    /// after it.
    ///
    /// # Errors
    /// A file cannot be read, or a setting is given both ways.
    pub fn read_files(&mut self) -> Result<(), KafkaConfigError> {
        let mut read = Vec::new();
        for (name, path) in &self.0 {
            let Some(key) = name.strip_suffix(FILE_SUFFIX) else {
                continue;
            };
            if self.0.contains_key(key) {
                let key = key.to_owned();
                return Err(KafkaConfigError::GivenTwice { key });
            }
            let secret = Secret::from_file(Path::new(path)).map_err(|error| {
                let (name, path) = (name.clone(), path.clone());
                let reason = error.to_string();
                KafkaConfigError::File { name, path, reason }
            })?;
            read.push((key.to_owned(), secret.expose().to_owned()));
        }
        self.0.extend(read);
        Ok(())
    }

    /// Returns the secrets among the settings, with their names.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.passed().filter(|(key, _)| is_secret(key))
    }

    /// Returns the files that hold secrets, with the settings that name them.
    pub fn secret_files(&self) -> impl Iterator<Item = (&str, &Path)> {
        let names = |key: &str| {
            key.ends_with(FILE_SUFFIX)
                || matches!(key, "ssl.key.location" | "ssl.keystore.location")
        };
        let files = self.0.iter().filter(move |(key, _)| names(key));
        files.map(|(key, path)| (key.as_str(), Path::new(path)))
    }
}

/// Ends the name of a setting whose value is in a file.
const FILE_SUFFIX: &str = "_file";

fn file_key(key: &str) -> String {
    format!("{key}{FILE_SUFFIX}")
}

/// Tells by its name whether a property's value must not be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    const SECRET_PARTS: [&str; 6] = [
        "password",
        "secret",
        "key.pem",
        "jaas",
        "oauthbearer.config",
        "token",
    ];
    // The address of a token server is no secret, and needed to understand a failure.
    let is_address =
        key.ends_with(".url") || key.ends_with(".location") || key.ends_with(FILE_SUFFIX);
    !is_address && SECRET_PARTS.iter().any(|part| key.contains(part))
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for KafkaProperties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.shown() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A value as a file or variable may hold it; tables come from keys written without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum PropertyValue {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Table(BTreeMap<String, PropertyValue>),
}

impl PropertyValue {
    fn flatten_into(self, key: String, properties: &mut BTreeMap<String, String>) {
        let text = match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => value,
            Self::Table(table) => {
                for (inner, value) in table {
                    value.flatten_into(format!("{key}.{inner}"), properties);
                }
                return;
            }
        };
        properties.insert(key, text);
    }
}

impl<'de> Deserialize<'de> for KafkaProperties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = BTreeMap::<String, PropertyValue>::deserialize(deserializer)?;
        let mut properties = BTreeMap::new();
        for (key, value) in table {
            value.flatten_into(key, &mut properties);
        }
        Ok(Self(properties))
    }
}

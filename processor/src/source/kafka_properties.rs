//! librdkafka settings that are passed through, secrets kept out of sight.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

/// librdkafka settings by name. Secrets are redacted wherever this is shown or serialised.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaProperties(pub BTreeMap<String, String>);

/// Stands in for a secret.
const REDACTED: &str = "<redacted>";

impl KafkaProperties {
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| {
            let shown = if is_secret(key) { REDACTED } else { value };
            (key.as_str(), shown)
        })
    }
}

/// Tells by its name whether a property's value must not be shown.
fn is_secret(key: &str) -> bool {
    const SECRET_PARTS: [&str; 6] = [
        "password",
        "secret",
        "key.pem",
        "jaas",
        "oauthbearer.config",
        "token",
    ];
    // The address of a token server is no secret, and needed to understand a failure.
    let is_address = key.ends_with(".url") || key.ends_with(".location");
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

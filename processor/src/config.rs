//! The configuration: one documented structure, filled from defaults, then `logguard.toml`, then
//! the environment, then flags. Checked once, here; nothing downstream asks again.
//!
//! A key that is not known is refused with its place. Secrets are never shown.

use std::{
    env,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    decode::{MaskRule, Masker},
    event::TopicPartition,
    model::WINDOWS_MIN,
    redact::{RedactionConfig, Redactor},
    sink::{
        SinksConfig, alarm_file::AlarmFileConfig, dead_letter::DeadLetterConfig,
        results::ResultsConfig, store::StoreConfig,
    },
    source::KafkaConfig,
    window::{GroupBy, LATENESS_WINDOWS_MAX, WindowConfig},
};

/// Name of the configuration file looked for in the working directory.
pub const FILE_NAME: &str = "logguard.toml";
/// Prefix of environment variables: `LOGGUARD_KAFKA__BROKERS` is `kafka.brokers`.
pub const ENV_PREFIX: &str = "LOGGUARD_";

/// Longest time that a first model is learnt from: a day of windows is what thresholds rest on.
const LEARN_MAX: Duration = Duration::from_secs(86_400);

/// All settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Brokers, topics, group.
    pub kafka: KafkaConfig,
    /// How windows are cut.
    pub window: WindowSection,
    /// The model and how it is judged.
    pub model: ModelSection,
    /// Masking of variables.
    pub mask: MaskSection,
    /// Secrets and personal data in text that leaves the process.
    pub redaction: RedactionConfig,
    /// The database.
    pub store: StoreConfig,
    /// The alarm file.
    pub alarms: AlarmFileConfig,
    /// The dead-letter topic.
    pub dead_letters: DeadLetterSection,
    /// Metrics and health.
    pub http: HttpSection,
    /// The program's own log.
    pub log: LogSection,
}

/// How windows are cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowSection {
    /// Window length in seconds, 1 to 86,400; 30 by default: long enough to hold a pattern, short
    /// enough to be told of an incident while it lasts.
    pub length_s: u32,
    /// How far behind the largest event time a record may be, in milliseconds; 2,000 by default:
    /// producers' batching delays lines by less. At most 120 windows.
    pub lateness_ms: u32,
    /// What makes records one stream: `partition` (default) or `service`.
    pub group_by: GroupBy,
    /// After this many seconds without a record the open windows of a partition become final by
    /// the clock; 300 by default.
    pub idle_final_s: u32,
}

impl Default for WindowSection {
    fn default() -> Self {
        Self {
            length_s: 30,
            lateness_ms: 2_000,
            group_by: GroupBy::Partition,
            idle_final_s: 300,
        }
    }
}

impl WindowSection {
    /// Returns what the windower needs.
    #[must_use]
    pub fn window_config(&self) -> WindowConfig {
        WindowConfig {
            length_ms: i64::from(self.length_s) * 1_000,
            lateness_ms: i64::from(self.lateness_ms),
            group_by: self.group_by,
        }
    }
}

/// The model and how it is judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// Directory of the bundle `model.json`; `model` by default.
    pub dir: PathBuf,
    /// Where there is no model, neither in `dir` nor active in the store: learn one from so much of the
    /// input topic, at least 20 windows and at most a day. Nothing by default: without a model `run`
    /// ends.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub learn: Option<Duration>,
    /// Most false alarm windows a day on normal time, over all streams together, above 0; 1 by
    /// default: what an on-call engineer will still read.
    pub alarms_per_day: f64,
    /// Whether windows are looked at before they are full, each second of event time; true by default: an
    /// incident need not wait for the end of its window.
    pub early_alarms: bool,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            dir: "model".into(),
            learn: None,
            alarms_per_day: 1.0,
            early_alarms: true,
        }
    }
}

/// Masking of variables, in training; the bundle carries the rules from there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskSection {
    /// Rules tried before the built-in ones, in order.
    pub rules: Vec<MaskRule>,
}

/// The dead-letter topic; its name is among the topics of `kafka`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterSection {
    /// Late records copied per minute at most; beyond it they are only counted. 600 by default:
    /// enough to see what is late, too little to double the traffic when a clock is wrong.
    pub late_per_minute_max: u32,
}

impl Default for DeadLetterSection {
    fn default() -> Self {
        Self {
            late_per_minute_max: 600,
        }
    }
}

/// Metrics and health.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Address of `/metrics`, `/livez` and `/readyz`; 127.0.0.1:9464 by default (9464 is the
    /// port that OpenTelemetry reserves for Prometheus exporters). Port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
        }
    }
}

/// The program's own log, on standard error.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// What to log, in tracing's filter syntax; `info` by default.
    pub filter: String,
    /// How: `text` (default) or `json`.
    pub format: LogFormat,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// Format of the program's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that is wrong with the configuration, one line each.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(Vec<String>);

impl From<String> for ConfigError {
    fn from(defect: String) -> Self {
        Self(vec![defect])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Reads the configuration: defaults, then `file` (or `logguard.toml` if it is there), then
    /// the environment, then `overrides` in the shape of the file.
    ///
    /// # Errors
    /// Returns every unknown key, wrong type and impossible value.
    pub fn load(file: Option<&Path>, overrides: Value) -> Result<Self, ConfigError> {
        if let Some(file) = file.filter(|file| !file.is_file()) {
            let file = file.display();
            let defect = format!("configuration file `{file}` does not exist");
            return Err(ConfigError(vec![defect]));
        }
        let file = Self::file(file);
        let mut figment = Figment::new();
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        refuse_near_misses(env::vars_os().map(|(name, _)| name))?;
        let parsed = Env::prefixed(ENV_PREFIX)
            .filter(|key| key.as_str().contains("__") && !is_literal(key.as_str()))
            .split("__");
        let figment = figment
            .merge(parsed)
            .merge(Serialized::globals(literal_settings(env::vars_os())))
            .merge(Serialized::globals(overrides));
        let mut config: Self = figment.extract().map_err(|errors| {
            let defects = errors
                .into_iter()
                .map(|error| in_one_line(&error.to_string()));
            ConfigError(defects.collect())
        })?;
        let read = config.kafka.properties.read_files();
        read.map_err(|error| ConfigError::from(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Returns the configuration file that is read: the one given, or `logguard.toml` if there is
    /// one.
    #[must_use]
    pub fn file(given: Option<&Path>) -> Option<&Path> {
        given.or_else(|| Some(Path::new(FILE_NAME)).filter(|file| file.is_file()))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let mut defects = Vec::new();
        if !(1..=86_400).contains(&self.window.length_s) {
            defects.push(format!(
                "window.length_s is {}: expected 1 to 86400 seconds",
                self.window.length_s
            ));
        }
        let WindowConfig {
            length_ms,
            lateness_ms,
            ..
        } = self.window.window_config();
        if length_ms > 0 && lateness_ms > length_ms.saturating_mul(LATENESS_WINDOWS_MAX) {
            defects.push(format!(
                "window.lateness_ms is {lateness_ms}: expected at most {LATENESS_WINDOWS_MAX} \
                 windows of {} s, which all stay open so long",
                self.window.length_s
            ));
        }
        if self.window.idle_final_s == 0 {
            defects.push("window.idle_final_s is 0: expected at least 1 second".to_owned());
        }
        let budget = self.model.alarms_per_day;
        if !(budget.is_finite() && budget > 0.0) {
            defects.push(format!(
                "model.alarms_per_day is {budget}: expected a number above 0"
            ));
        }
        defects.extend(self.learn_defect());
        defects.extend(
            Masker::new(&self.mask.rules)
                .err()
                .map(|error| format!("mask.rules: {error}")),
        );
        defects.extend(
            Redactor::new(&self.redaction)
                .err()
                .map(|error| format!("redaction: {error}")),
        );
        defects.extend(self.kafka.validate().err().map(|error| error.to_string()));
        defects.extend(self.store.validate().err().map(|error| error.to_string()));
        if defects.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(defects))
        }
    }

    fn learn_defect(&self) -> Option<String> {
        let learn = self.model.learn?;
        let windows = u32::try_from(WINDOWS_MIN).unwrap_or(u32::MAX);
        let least = u64::from(self.window.length_s) * u64::from(windows);
        let (least, most) = (
            Duration::from_secs(least),
            LEARN_MAX.max(Duration::from_secs(least)),
        );
        (!(least..=most).contains(&learn)).then(|| {
            let [learn, least, most] = [learn, least, most].map(humantime::format_duration);
            format!(
                "model.learn is {learn}: expected {least} ({windows} windows of {} s) to {most}",
                self.window.length_s
            )
        })
    }

    /// Returns the partition that the events of a file are taken to stand in: the first of the
    /// input topic, so that a file and a topic of one partition give the same rows.
    #[must_use]
    pub fn file_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: self.kafka.input_topic.as_str().into(),
            partition: 0,
        }
    }

    /// Returns the settings of the sinks.
    #[must_use]
    pub fn sinks(&self) -> SinksConfig {
        SinksConfig {
            store: self.store.clone(),
            results: ResultsConfig {
                topic: self.kafka.output_topic.clone(),
            },
            alarm_file: self.alarms.clone(),
            dead_letter: DeadLetterConfig {
                topic: self.kafka.dead_letter_topic.clone(),
                late_per_minute_max: self.dead_letters.late_per_minute_max,
            },
            redaction: self.redaction.clone(),
        }
    }

    /// Returns the configuration as TOML, secrets redacted.
    ///
    /// # Errors
    /// Returns an error if a value cannot be expressed in TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

/// Refuses a variable that means a setting and misses it: `LOGGUARD_KAFKA_BROKERS` has one
/// underscore too few, and whoever set it wants to hear of it. Others with our prefix are none of
/// our business: Kubernetes makes such variables for every service called `logguard`.
fn refuse_near_misses(names: impl Iterator<Item = OsString>) -> Result<(), ConfigError> {
    let settings = serde_json::to_value(Config::default()).unwrap_or_default();
    let section_of = |name: &str| -> Option<(String, String)> {
        let name = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase();
        settings.as_object()?.iter().find_map(|(section, keys)| {
            let key = name.strip_prefix(section.as_str())?.strip_prefix('_')?;
            let known = keys.get(key).is_some();
            known.then(|| (section.to_ascii_uppercase(), key.to_ascii_uppercase()))
        })
    };
    let missed: Vec<_> = names
        .filter_map(|name| name.into_string().ok())
        .filter_map(|name| section_of(&name).map(|place| (name, place)))
        .map(|(name, (section, key))| {
            format!("`{name}` in the environment is no setting: write {ENV_PREFIX}{section}__{key}")
        })
        .collect();
    if missed.is_empty() {
        Ok(())
    } else {
        Err(ConfigError(missed))
    }
}

/// Whether the value of this variable (without the prefix) is taken to the letter: a password of
/// `007` is not the number 7.
fn is_literal(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(key.as_str(), "store__url" | "store__password")
        || key.starts_with("kafka__properties__")
}

/// Returns the settings whose values are taken to the letter, in the shape of the file. The names
/// of librdkafka properties have their dots written as two underscores.
fn literal_settings(variables: impl Iterator<Item = (OsString, OsString)>) -> Value {
    let (mut store, mut properties) = (Map::new(), Map::new());
    for (name, value) in variables {
        let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else {
            continue;
        };
        let Some(key) = name.strip_prefix(ENV_PREFIX).filter(|key| is_literal(key)) else {
            continue;
        };
        let key = key.to_ascii_lowercase();
        if let Some(property) = key.strip_prefix("kafka__properties__") {
            properties.insert(property.replace("__", "."), Value::String(value));
        } else if let Some(setting) = key.strip_prefix("store__") {
            store.insert(setting.to_owned(), Value::String(value));
        }
    }
    let mut settings = json!({});
    if !store.is_empty() {
        settings["store"] = Value::Object(store);
    }
    if !properties.is_empty() {
        settings["kafka"] = json!({"properties": properties});
    }
    settings
}

/// Returns what the TOML parser says without the picture of the place, which takes lines of its
/// own; line and column are named before it.
fn in_one_line(text: &str) -> String {
    let is_picture = |line: &str| {
        let gutter = line.trim_start_matches(|char: char| char == ' ' || char.is_ascii_digit());
        gutter.starts_with('|')
    };
    let lines = text.lines().map(str::trim_end);
    let told: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !is_picture(line))
        .map(str::trim)
        .collect();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), json!({}))
    }

    #[test]
    fn defaults_are_valid_and_print() {
        let config = load("").unwrap();
        let printed = config.to_toml().unwrap();
        assert!(
            printed.contains("consumer_group = \"logguard-processor\""),
            "{printed}"
        );
        load(&printed).unwrap();
    }

    #[test]
    fn flags_beat_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, "[window]\nlength_s = 10\nlateness_ms = 5").unwrap();
        let config = Config::load(Some(&file), json!({"window": {"length_s": 20}})).unwrap();
        assert_eq!((config.window.length_s, config.window.lateness_ms), (20, 5));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused_with_their_place() {
        let error = load("[window]\nlenght_s = 10").unwrap_err().to_string();
        assert!(
            error.contains("lenght_s") && error.contains("c.toml"),
            "{error}"
        );
        let error = load("[window]\nlength_s = 0\n[model]\nalarms_per_day = -1").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("window.length_s is 0"), "{error}");
        assert!(error.contains("model.alarms_per_day is -1"), "{error}");
    }

    #[test]
    fn secrets_from_the_environment_are_taken_to_the_letter() {
        let variables = [
            ("LOGGUARD_STORE__PASSWORD", "007"),
            ("LOGGUARD_KAFKA__PROPERTIES__SASL__PASSWORD", "\"q\""),
            ("LOGGUARD_WINDOW__LENGTH_S", "10"),
        ];
        let owned = variables.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(
            literal_settings(owned.into_iter()),
            json!({
                "store": {"password": "007"},
                "kafka": {"properties": {"sasl.password": "\"q\""}},
            })
        );
    }

    #[test]
    fn variables_that_miss_a_setting_are_refused_and_others_are_not() {
        let refused = |name: &str| refuse_near_misses([name.into()].into_iter()).is_err();
        assert!(refused("LOGGUARD_KAFKA_BROKERS"));
        for name in [
            "LOGGUARD_CONFIG",
            "LOGGUARD_KAFKA__BROKERS",
            "LOGGUARD_PORT",
            "LOGGUARD_KAFKA_SERVICE_HOST",
            "LOGGUARD_DB_PASSWORD",
            "HOME",
        ] {
            assert!(!refused(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = load("[store]\nurl = \"postgres://u:hunter2@h/d\"").unwrap();
        assert!(!config.to_toml().unwrap().contains("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

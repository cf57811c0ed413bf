//! The `[redaction]` section and what may be wrong with it.

use regex_automata::Input;
use serde::{Deserialize, Serialize};

use super::{compile, rules::BUILT_IN};

/// Most rules a user adds: they share one automaton, which has to stay small.
const USER_RULES_MAX: usize = 128;

/// What is masked in text that leaves the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionConfig {
    /// Whether anything is masked. Default: true.
    pub enabled: bool,
    /// Built-in rules that are switched off, by name: `private-key`, `password`, `secret`, `token`,
    /// `api-key`, `card`, `email`, `iban`, `ssn`. Default: none.
    pub disable: Vec<String>,
    /// Further rules, tried before the built-in ones, in order. Default: none.
    pub rules: Vec<RedactionRule>,
}

impl Default for RedactionConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            disable: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// A rule of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionRule {
    /// What a match is replaced by, without angle brackets: `customer` gives `<customer>`.
    pub name: String,
    /// The pattern (syntax of the `regex` crate). With a group `(?P<secret>…)` only that part of a
    /// match is replaced.
    pub pattern: String,
}

/// A rule that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedactError {
    /// The rule itself is at fault.
    #[error("redaction rule `{name}` cannot be used: {reason}")]
    Rule {
        /// The rule's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such rule to switch off.
    #[error("there is no built-in redaction rule `{name}` to disable; there are {known}")]
    Unknown {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// All rules together are too large, or too many.
    #[error("the redaction rules cannot be used together: {reason}")]
    Together {
        /// Why.
        reason: String,
    },
}

impl RedactError {
    pub(super) fn together(reason: String) -> Self {
        Self::Together { reason }
    }
}

impl RedactionConfig {
    pub(super) fn check(&self) -> Result<(), RedactError> {
        for name in &self.disable {
            if !BUILT_IN.iter().any(|rule| rule.name == name) {
                let known: Vec<_> = BUILT_IN.iter().map(|rule| rule.name).collect();
                return Err(RedactError::Unknown {
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
        if self.rules.len() > USER_RULES_MAX {
            let reason = format!("there are more than {USER_RULES_MAX}");
            return Err(RedactError::Together { reason });
        }
        self.rules.iter().try_for_each(RedactionRule::check)
    }
}

impl RedactionRule {
    fn check(&self) -> Result<(), RedactError> {
        let refused = |reason: &str| RedactError::Rule {
            name: self.name.clone(),
            reason: reason.to_owned(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(plain) {
            return Err(refused(
                "its name must be 1 to 32 letters, digits, `_` or `-`",
            ));
        }
        // As a mask it has to match whole characters, so nothing else is taken here either.
        let alone = compile(std::slice::from_ref(&self.pattern), true)
            .map_err(|reason| refused(&reason))?;
        if alone.is_match(Input::new("")) {
            return Err(refused("it matches the empty text"));
        }
        Ok(())
    }
}

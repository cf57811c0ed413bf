//! Redaction: secrets and personal data in log text are masked before the text leaves the process.
//!
//! ```text
//! "login of ann@example.com, password=hunter2" ──► "login of <email>, password=<password>"
//! ```
//!
//! The one place that decides what may not be shown. Ordered rules, compiled once into one
//! automaton: the leftmost match wins, and among rules that match at the same place the first.
//! Applied to what leaves only (samples, dead letters, raw lines, distinct templates, the
//! program's own log), never to every message. Pure, and idempotent: text that was redacted is
//! left as it is.

mod config;
mod json;
mod patterns;
mod rules;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, ops::Range};

use regex_automata::{Input, PatternID, meta, util::syntax};

pub use config::{RedactError, RedactionConfig, RedactionRule};
use rules::{BUILT_IN, Check, Shape};

/// Largest compiled size of all rules together, in bytes: a rule such as `(a{1000}){1000}` must
/// not eat the machine.
const COMPILED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Cache of the lazy automaton, in bytes, so that ordinary rule sets are never evicted.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Longest match that turned out to be no secret, in bytes, within which another is looked for: no
/// card number or IBAN is longer, and a line made for it must not be read over and over.
const LOOK_WITHIN_BYTES_MAX: usize = 64;
/// Group of a pattern that alone is masked; without it the whole match is.
const SECRET_GROUP: &str = "secret";

/// Masks secrets in text. Cheap to ask, dear to make: share it.
#[derive(Debug)]
pub struct Redactor {
    /// `None` without rules.
    regex: Option<meta::Regex>,
    /// One per pattern of `regex`.
    parts: Vec<Part>,
    masks: Vec<(String, String)>,
}

/// What one pattern means.
#[derive(Debug)]
struct Part {
    placeholder: String,
    secret_group: Option<usize>,
    check: Option<Check>,
}

impl Redactor {
    /// Compiles the rules that `config` asks for: the user's first, in order, then the built-in
    /// ones that are not switched off; none at all if redaction is off.
    ///
    /// # Errors
    /// Names the first rule that does not compile, could match nothing at all, or has a name that
    /// cannot stand in a placeholder or be switched off.
    pub fn new(config: &RedactionConfig) -> Result<Self, RedactError> {
        config.check()?;
        let mut made = Self {
            regex: None,
            parts: Vec::new(),
            masks: Vec::new(),
        };
        if !config.enabled {
            return Ok(made);
        }
        let mut patterns = Vec::new();
        for rule in &config.rules {
            made.add(&rule.name, None);
            patterns.push(rule.pattern.clone());
            made.masks.push((rule.name.clone(), rule.pattern.clone()));
        }
        let wanted = |name: &str| !config.disable.iter().any(|off| off == name);
        for rule in BUILT_IN.iter().filter(|rule| wanted(rule.name)) {
            for Shape { find, check } in (rule.shapes)() {
                made.add(rule.name, check);
                // Bytes, so that text around a broken character is read like any other.
                patterns.push(format!("(?-u:{find})"));
            }
            let masks = (rule.masks)().into_iter();
            made.masks
                .extend(masks.map(|(name, mask)| (name.to_owned(), mask)));
        }
        if !patterns.is_empty() {
            let regex = compile(&patterns, false).map_err(RedactError::together)?;
            for (index, part) in made.parts.iter_mut().enumerate() {
                let pattern = PatternID::new(index).ok();
                part.secret_group =
                    pattern.and_then(|it| regex.group_info().to_index(it, SECRET_GROUP));
            }
            made.regex = Some(regex);
        }
        Ok(made)
    }

    fn add(&mut self, name: &str, check: Option<Check>) {
        self.parts.push(Part {
            placeholder: format!("<{name}>"),
            secret_group: None,
            check,
        });
    }

    /// Returns masking rules (name and pattern) under which a template holds none of what the
    /// rules mask: for training, to be tried before all others. They see secrets as the variables
    /// they are, so that a template does not come new with every token.
    #[must_use]
    pub fn masks(&self) -> &[(String, String)] {
        &self.masks
    }

    /// Returns `text` without its secrets.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Matches end at ASCII or at characters; only a user's rule could split one.
            Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            }),
        }
    }

    /// Returns `bytes` without their secrets, whether they are text or not.
    #[must_use]
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(regex) = &self.regex else {
            return Cow::Borrowed(bytes);
        };
        let mut groups = regex.create_captures();
        let mut out = Vec::new();
        let (mut from, mut rest) = (0, 0);
        while from <= bytes.len() {
            regex.search_captures(&Input::new(bytes).range(from..), &mut groups);
            let (Some(found), Some(pattern)) = (groups.get_match(), groups.pattern()) else {
                break;
            };
            let part = &self.parts[pattern.as_usize()];
            let group = part.secret_group.and_then(|group| groups.get_group(group));
            let span = group.map_or(found.range(), |group| group.range());
            let secret = match part.check {
                // It was masked before.
                _ if bytes[span.clone()].starts_with(part.placeholder.as_bytes()) => None,
                None => Some(span),
                Some(check) => check(bytes, span),
            };
            let Some(Range { start, end }) = secret else {
                // Only looks like one; another may begin within it.
                let short = found.len() <= LOOK_WITHIN_BYTES_MAX;
                from = if short {
                    found.start() + 1
                } else {
                    found.end()
                };
                continue;
            };
            out.extend_from_slice(&bytes[rest..start]);
            out.extend_from_slice(part.placeholder.as_bytes());
            rest = end;
            from = end.max(found.start() + 1);
        }
        if rest == 0 {
            return Cow::Borrowed(bytes);
        }
        out.extend_from_slice(&bytes[rest..]);
        Cow::Owned(out)
    }

    /// Returns a record's payload without its secrets: JSON, what is left of JSON, or anything
    /// else. Text inside JSON strings is looked at as it reads without escapes.
    #[must_use]
    pub fn payload<'a>(&self, payload: &'a [u8]) -> Cow<'a, [u8]> {
        if self.regex.is_none() {
            return Cow::Borrowed(payload);
        }
        match json::redact_literals(payload, &|text| self.text(text)) {
            None => self.bytes(payload),
            Some(payload) => match self.bytes(&payload) {
                Cow::Owned(payload) => Cow::Owned(payload),
                Cow::Borrowed(_) => Cow::Owned(payload),
            },
        }
    }
}

fn compile(patterns: &[String], utf8: bool) -> Result<meta::Regex, String> {
    let config = meta::Config::new()
        .utf8_empty(utf8)
        .nfa_size_limit(Some(COMPILED_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES);
    meta::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().utf8(utf8))
        .build_many(patterns)
        .map_err(|error| match error.syntax_error() {
            Some(syntax) => syntax.to_string(),
            None => error.to_string(),
        })
}

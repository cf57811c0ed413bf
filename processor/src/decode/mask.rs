//! Masking of variables: ordered regex rules, applied in one pass.
//!
//! ```text
//! "GET /a/b from 10.0.0.7 took 31ms" ──► "GET <path> from <ip> took <duration>"
//! ```
//!
//! All rules are one multi-pattern automaton: the leftmost match wins, and among rules that match
//! at the same place the first in the list. Nothing but the caller's output buffer grows.

use regex_automata::{Match, meta, nfa::thompson, util::syntax};
use serde::{Deserialize, Serialize};

/// Most rules one masker takes: their automaton is shared and has to stay small.
const RULES_MAX: usize = 256;

/// Largest compiled size of all rules together, in bytes: a rule such as `(a{1000}){1000}` must
/// not eat the machine.
const COMPILED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Cache of the lazy automaton, in bytes: large enough that ordinary rule sets are never evicted.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The default rules, most specific first. `(?-u:…)` keeps them ASCII, which is many times faster
/// and loses nothing: variables in log lines are ASCII.
const DEFAULT_RULES: [(&str, &str); 13] = [
    ("str", r#""[^"\r\n]*"|(?-u:\B)'[^'\r\n]*'(?-u:\B)"#),
    (
        "uuid",
        r"(?-u:\b)[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?-u:\b)",
    ),
    (
        "url",
        r#"(?-u:\b)[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s"'<>\])]+"#,
    ),
    (
        "email",
        r"(?-u:\b)[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?-u:\b)",
    ),
    (
        "ip",
        r"/?(?-u:\b)[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?::[0-9]{1,5})?(?-u:\b)",
    ),
    (
        "time",
        r"(?-u:\b)[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?(?-u:\b)",
    ),
    (
        "path",
        r"(?:[A-Za-z]:)?(?:[/\\][A-Za-z0-9_.@%+~-]+){2,}[/\\]?",
    ),
    ("hex", r"(?-u:\b)0[xX][0-9A-Fa-f]+(?-u:\b)"),
    (
        "id",
        r"(?-u:\b)(?:[A-Za-z][A-Za-z0-9]*(?:(?:_-?|-)(?:[A-Za-z0-9]*[0-9][A-Za-z0-9]*|[a-f]{8,}))+|[A-Z]{1,4}[0-9]{2,})(?-u:\b)",
    ),
    (
        "duration",
        r"(?-u:\b)[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|sec|secs|seconds|min|mins|minutes|h|hours|d|days)(?-u:\b)",
    ),
    ("percent", r"(?-u:\b)[0-9]+(?:\.[0-9]+)?%"),
    (
        "num",
        r"-?(?-u:\b)[0-9]+(?:[.,:][0-9]+)*(?:[eE][+-]?[0-9]+)?(?:[kKMGT]i?[bB]?|[bB])?(?-u:\b)",
    ),
    // After `num`, so that a long decimal number stays one.
    ("hex", r"(?-u:\b)[0-9A-Fa-f]{8,}(?-u:\b)"),
];

/// One masking rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRule {
    /// What a match is replaced by, without angle brackets: `num` gives `<num>`.
    pub name: String,
    /// The pattern (syntax of the `regex` crate).
    pub pattern: String,
}

/// A rule that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("mask rule `{name}` is not a valid pattern: {reason}")]
pub struct MaskError {
    /// The rule's name.
    pub name: String,
    /// What the regex compiler says.
    pub reason: String,
}

/// Replaces the variables of a message.
#[derive(Debug)]
pub struct Masker {
    rules: Vec<MaskRule>,
    placeholders: Vec<String>,
    regex: Option<meta::Regex>,
}

impl Masker {
    /// Compiles `rules`; earlier rules win over later ones at the same place.
    ///
    /// # Errors
    /// Names the first rule that does not compile, could match nothing at all (it would match
    /// everywhere), or has a name that cannot stand in a placeholder.
    pub fn new(rules: &[MaskRule]) -> Result<Self, MaskError> {
        if let Some(rule) = rules.get(RULES_MAX) {
            return Err(rule.error(format!("it is one of more than {RULES_MAX} rules")));
        }
        for rule in rules {
            rule.check()?;
        }
        let patterns: Vec<_> = rules.iter().map(|rule| rule.pattern.as_str()).collect();
        let regex = match (patterns.is_empty(), build(&patterns)) {
            (true, _) => None,
            (false, Ok(regex)) => Some(regex),
            // Each rule compiled alone, so it is their sum that is too large.
            (false, Err(error)) => {
                let last = rules.len() - 1;
                return Err(rules[last].error(format!("together with the rules before: {error}")));
            }
        };
        Ok(Self {
            rules: rules.to_vec(),
            placeholders: rules.iter().map(|r| format!("<{}>", r.name)).collect(),
            regex,
        })
    }

    /// Returns the rules used when none are configured: quoted strings, UUIDs, URLs, e-mail and
    /// IP addresses, timestamps, paths, hexadecimal, ids such as `sess_570939`, durations,
    /// percentages, numbers.
    #[must_use]
    pub fn default_rules() -> Vec<MaskRule> {
        DEFAULT_RULES
            .iter()
            .map(|&(name, pattern)| MaskRule {
                name: name.to_owned(),
                pattern: pattern.to_owned(),
            })
            .collect()
    }

    /// Returns the rules this masker was made from, in order.
    #[must_use]
    pub fn rules(&self) -> &[MaskRule] {
        &self.rules
    }

    /// Appends `message` with its variables masked to `out`.
    pub fn mask_into(&self, message: &str, out: &mut String) {
        self.mask_telling(message, out, |_| {});
    }

    /// Does the same, and tells what is masked.
    pub(super) fn mask_telling(
        &self,
        message: &str,
        out: &mut String,
        mut masked: impl FnMut(Match),
    ) {
        let mut rest = 0;
        if let Some(regex) = &self.regex {
            for found in regex.find_iter(message) {
                // Empty matches are excluded by `MaskRule::check`; matches of a UTF-8 regex lie
                // on character boundaries.
                let (Some(before), Some(placeholder)) = (
                    message.get(rest..found.start()),
                    self.placeholders.get(found.pattern().as_usize()),
                ) else {
                    continue;
                };
                out.push_str(before);
                out.push_str(placeholder);
                rest = found.end();
                masked(found);
            }
        }
        out.push_str(message.get(rest..).unwrap_or_default());
    }
}

impl MaskRule {
    fn error(&self, reason: String) -> MaskError {
        MaskError {
            name: self.name.clone(),
            reason,
        }
    }

    fn check(&self) -> Result<(), MaskError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(plain) {
            let reason = "its name must be 1 to 32 letters, digits, `_` or `-`";
            return Err(self.error(reason.to_owned()));
        }
        let alone = build(&[&self.pattern]).map_err(|error| self.error(error))?;
        if alone.is_match("") {
            return Err(self.error("it matches the empty text".to_owned()));
        }
        Ok(())
    }
}

fn build(patterns: &[&str]) -> Result<meta::Regex, String> {
    let config = meta::Config::new()
        .utf8_empty(true)
        .nfa_size_limit(Some(COMPILED_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES)
        // Groups inside rules are only for precedence.
        .which_captures(thompson::WhichCaptures::Implicit);
    meta::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().utf8(true))
        .build_many(patterns)
        .map_err(|error| match error.syntax_error() {
            Some(syntax) => syntax.to_string(),
            None => error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn masked(rules: &[MaskRule], message: &str) -> String {
        let mut out = String::new();
        Masker::new(rules).unwrap().mask_into(message, &mut out);
        out
    }

    fn check(message: &str, expected: Expect) {
        expected.assert_eq(&masked(&Masker::default_rules(), message));
    }

    #[test]
    fn variables_become_placeholders() {
        check(
            "User session created - session_id: sess_570939",
            expect!["User session created - session_id: <id>"],
        );
        check(
            "Cache miss for key: cache_70, item_122",
            expect!["Cache miss for key: <id>, <id>"],
        );
        check(
            "Receiving block blk_-1608999687919862906 src: /10.250.19.102:54106 dest: /10.250.19.102:50010",
            expect!["Receiving block <id> src: <ip> dest: <ip>"],
        );
        check(
            "Slow query detected - duration: 184ms, 12.5s, 87.5%",
            expect!["Slow query detected - duration: <duration>, <duration>, <percent>"],
        );
        check(
            "PUT /api/v1/orders from 192.168.7.1:8080 by ann@example.com",
            expect!["PUT <path> from <ip> by <email>"],
        );
        check(
            "Payment processed - transaction_id: txn_12345, amount: $1,234.56",
            expect!["Payment processed - transaction_id: <id>, amount: $<num>"],
        );
        check(
            "open https://a.example/x?y=1 failed: \"no such 'thing'\" at 0xDEADbeef",
            expect!["open <url> failed: <str> at <hex>"],
        );
        check(
            "request 123e4567-e89b-12d3-a456-426614174000 hash 9f86d081884c7d65 rev e3b0c44298fc",
            expect!["request <uuid> hash <hex> rev <hex>"],
        );
        check(
            "at 2025-12-24T23:44:17.636Z and 2025-12-24, -5 items of 10 kept, 4096 kB, 12:30:01",
            expect!["at <time> and <time>, <num> items of <num> kept, <num> kB, <num>"],
        );
        check(
            "Unexpected error code E8253 from server-7.example.com",
            expect!["Unexpected error code <id> from <id>.example.com"],
        );
    }

    #[test]
    fn words_stay_as_they_are() {
        for text in [
            "payment-service can't reach user-service",
            "Query plan: index_scan",
            "ünïcode – 漢字",
            "",
            "dead beef decade facade",
            "it's Ann's and Bob's",
        ] {
            assert_eq!(masked(&Masker::default_rules(), text), text);
        }
    }

    #[test]
    fn an_earlier_rule_wins_and_users_extend_the_list() {
        let mut rules = vec![MaskRule {
            name: "order".to_owned(),
            pattern: r"ord_[0-9]+".to_owned(),
        }];
        rules.extend(Masker::default_rules());
        assert_eq!(masked(&rules, "ord_17 of usr_4"), "<order> of <id>");
        assert_eq!(masked(&[], "ord_17"), "ord_17");
    }

    #[test]
    fn masking_appends_and_is_idempotent_on_placeholders() {
        let masker = Masker::new(&Masker::default_rules()).unwrap();
        let mut out = "kept ".to_owned();
        masker.mask_into("a <num> b 7", &mut out);
        assert_eq!(out, "kept a <num> b <num>");
    }

    #[test]
    fn bad_rules_are_refused_by_name() {
        let error = |name: &str, pattern: &str| {
            let rule = MaskRule {
                name: name.to_owned(),
                pattern: pattern.to_owned(),
            };
            Masker::new(&[rule]).unwrap_err().to_string()
        };
        assert!(error("open", "(a").contains("`open`"));
        assert!(error("empty", "a*").contains("matches the empty text"));
        assert!(error("a b", "a").contains("its name must be"));
        assert!(error("huge", "(?:(?:a{1000}){1000}){1000}").contains("`huge`"));
    }
}

//! Where masking rules tell digits apart: nearly nowhere, which spares masking most messages again.
//!
//! A rule tells digits apart by a text it asks for, such as the `0` of `0x1f`, or by a class that has
//! some digits and not others. A text that stands nowhere in a message, whatever its digits, cannot
//! match there: the rule then behaves as if it had no such part, and all digits are alike to the rest.

use regex_automata::meta;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Most texts looked for; rules with more are taken to tell digits apart everywhere.
const TEXTS_MAX: usize = 256;

/// The texts in which a set of rules tells digits apart.
#[derive(Debug)]
pub(super) struct Digits {
    /// Finds them once every digit is a `0`; `None` if the rules tell digits apart by more than texts.
    texts: Option<meta::Regex>,
}

impl Digits {
    pub(super) fn told_apart_by(patterns: &[&str]) -> Self {
        let mut texts = Some(Vec::new());
        for pattern in patterns {
            match regex_syntax::parse(pattern) {
                Ok(rule) => collect(&rule, None, &mut texts),
                Err(_) => texts = None,
            }
        }
        let texts = texts.filter(|texts| texts.len() <= TEXTS_MAX);
        Self {
            texts: texts.as_deref().and_then(any_of),
        }
    }

    /// Returns whether no rule tells digits apart in a message which is this one once every digit is a `0`.
    pub(super) fn are_alike_in(&self, blinded: &[u8]) -> bool {
        let texts = self.texts.as_ref();
        texts.is_some_and(|texts| !texts.is_match(blinded))
    }
}

/// Returns what finds any of `texts`, nothing if there are none, in one pass; `None` if they are too much
/// for it.
fn any_of(texts: &[Vec<u8>]) -> Option<meta::Regex> {
    let text = |text: &Vec<u8>| Hir::literal(text.as_slice());
    let hir = Hir::alternation(texts.iter().map(text).collect());
    let config = meta::Config::new().utf8_empty(false);
    let mut builder = meta::Builder::new();
    builder.configure(config).build_from_hir(&hir).ok()
}

/// Returns what stands for a byte when digits are not told apart.
pub(super) fn blind(byte: u8) -> u8 {
    if byte.is_ascii_digit() { b'0' } else { byte }
}

/// Collects the texts of a part of a rule that is followed by `next`.
fn collect(part: &Hir, next: Option<&Hir>, texts: &mut Option<Vec<Vec<u8>>>) {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Class(class) => {
            if !has_all_digits_or_none(class) {
                *texts = None;
            }
        }
        HirKind::Literal(literal) if literal.0.iter().any(u8::is_ascii_digit) => {
            match (texts.as_mut(), with_next(&literal.0, next)) {
                (Some(texts), Some(more)) => texts.extend(more),
                _ => *texts = None,
            }
        }
        HirKind::Literal(_) => {}
        HirKind::Repetition(repetition) => collect(&repetition.sub, None, texts),
        HirKind::Capture(capture) => collect(&capture.sub, None, texts),
        HirKind::Alternation(parts) => parts.iter().for_each(|it| collect(it, None, texts)),
        HirKind::Concat(parts) => {
            let nexts = parts.iter().skip(1).map(Some).chain([None]);
            for (part, next) in parts.iter().zip(nexts) {
                collect(part, next, texts);
            }
        }
    }
}

/// Returns a text that a rule asks for, blinded. One of digits alone stands in many messages: the class
/// that has to follow makes it rarer. `None` if there is no such class.
fn with_next(text: &[u8], next: Option<&Hir>) -> Option<Vec<Vec<u8>>> {
    let text: Vec<u8> = text.iter().copied().map(blind).collect();
    if text.iter().any(|byte| *byte != b'0') {
        return Some(vec![text]);
    }
    let HirKind::Class(class) = next?.kind() else {
        return None;
    };
    let followed = |byte: u8| [text.as_slice(), &[blind(byte)]].concat();
    Some(ascii_members(class)?.into_iter().map(followed).collect())
}

/// Returns the members of a small ASCII class.
fn ascii_members(class: &Class) -> Option<Vec<u8>> {
    const MEMBERS_MAX: usize = 8;
    let ranges: Vec<(u32, u32)> = ranges(class);
    let members = ranges.iter().flat_map(|(first, last)| *first..=*last);
    let members: Vec<u32> = members.take(MEMBERS_MAX + 1).collect();
    let ascii = |member: &u32| u8::try_from(*member).ok().filter(u8::is_ascii);
    let all: Option<Vec<u8>> = members.iter().map(ascii).collect();
    all.filter(|members| members.len() <= MEMBERS_MAX)
}

fn ranges(class: &Class) -> Vec<(u32, u32)> {
    match class {
        Class::Unicode(class) => class
            .iter()
            .map(|it| (it.start().into(), it.end().into()))
            .collect(),
        Class::Bytes(class) => class
            .iter()
            .map(|it| (it.start().into(), it.end().into()))
            .collect(),
    }
}

fn has_all_digits_or_none(class: &Class) -> bool {
    let ranges = ranges(class);
    let has = |digit: u8| {
        let digit = u32::from(digit);
        ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&digit))
    };
    (b'1'..=b'9').all(|digit| has(digit) == has(b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(patterns: &[&str], message: &str) -> bool {
        let blinded: Vec<u8> = message.bytes().map(blind).collect();
        Digits::told_apart_by(patterns).are_alike_in(&blinded)
    }

    #[test]
    fn classes_with_all_digits_tell_none_apart() {
        for pattern in [
            "[0-9]{1,3}",
            r"\d+x",
            "(?i)[a-f0-9]{8}",
            "[^x]+",
            r"(?-u:\b)v\w*",
        ] {
            assert!(alike(&[pattern], "job 17 v2"), "{pattern}");
        }
    }

    #[test]
    fn classes_with_some_digits_tell_them_apart_everywhere() {
        for pattern in ["[1-9][0-9]*", "x|[0-5]", "(a[02468]b)*", "7+", "a(0)"] {
            assert!(!alike(&[pattern], "no digit"), "{pattern}");
        }
    }

    #[test]
    fn texts_tell_digits_apart_where_they_may_stand() {
        let patterns = ["0[xX][0-9a-f]+", r"ya29\.[a-z]+", "[0-9]+"];
        assert!(alike(&patterns, "took 10 ms over v2"));
        assert!(!alike(&patterns, "at 0x1f"));
        assert!(
            !alike(&patterns, "at 7X1f"),
            "a message of its shape may have a 0 there"
        );
        assert!(!alike(&patterns, "token ya31.b"));
    }
}

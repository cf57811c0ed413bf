//! JSON string literals in a payload that may be cut short or no JSON at all: each is read without
//! its escapes, and written again only if that showed something to mask.
//!
//! Without this `ann\u0040example.com` would pass for no address.

use std::borrow::Cow;

/// Literals inside literals are followed this deep: logged requests hold JSON of JSON.
const DEPTH_MAX: usize = 4;

/// Returns `payload` with every literal that holds escapes passed through `redact`, `None` if that
/// changes nothing.
pub(super) fn redact_literals(
    payload: &[u8],
    redact: &dyn Fn(&str) -> Cow<'_, str>,
) -> Option<Vec<u8>> {
    redact_to_depth(payload, redact, DEPTH_MAX)
}

fn redact_to_depth(
    payload: &[u8],
    redact: &dyn for<'a> Fn(&'a str) -> Cow<'a, str>,
    depth: usize,
) -> Option<Vec<u8>> {
    if depth == 0 || !payload.contains(&b'\\') {
        return None;
    }
    let mut out = Vec::new();
    let (mut rest, mut at) = (0, 0);
    while let Some(literal) = next_literal(payload, at) {
        at = literal.after;
        if let Some(content) = literal.redacted(payload, redact, depth) {
            out.extend_from_slice(&payload[rest..literal.start]);
            out.extend_from_slice(content.as_bytes());
            rest = literal.end;
        }
    }
    if rest == 0 {
        return None;
    }
    out.extend_from_slice(&payload[rest..]);
    Some(out)
}

/// A literal's content, between its quotes.
struct Literal {
    start: usize,
    end: usize,
    /// Where to look for the next one.
    after: usize,
    escaped: bool,
}

/// Finds the next literal; one that is not closed ends with the payload, before an escape that is
/// cut in two.
fn next_literal(payload: &[u8], from: usize) -> Option<Literal> {
    let quote = payload.get(from..)?.iter().position(|byte| *byte == b'"')?;
    let start = from + quote + 1;
    let (mut at, mut escaped) = (start, false);
    while let Some(byte) = payload.get(at) {
        match byte {
            b'"' => {
                return Some(Literal {
                    start,
                    end: at,
                    after: at + 1,
                    escaped,
                });
            }
            b'\\' => {
                escaped = true;
                let length = if payload.get(at + 1) == Some(&b'u') {
                    6
                } else {
                    2
                };
                if at + length > payload.len() {
                    break;
                }
                at += 2;
            }
            _ => at += 1,
        }
    }
    (start < payload.len()).then_some(Literal {
        start,
        end: at.min(payload.len()),
        after: payload.len(),
        escaped,
    })
}

impl Literal {
    /// Returns the content written again if `redact` changes what it says.
    fn redacted(
        &self,
        payload: &[u8],
        redact: &dyn for<'a> Fn(&'a str) -> Cow<'a, str>,
        depth: usize,
    ) -> Option<String> {
        if !self.escaped {
            return None;
        }
        let content = payload.get(self.start..self.end)?;
        let quoted = [b"\"", content, b"\""].concat();
        let text: String = serde_json::from_slice(&quoted).ok()?;
        let inner = redact_to_depth(text.as_bytes(), redact, depth - 1);
        let inner = inner.and_then(|inner| String::from_utf8(inner).ok());
        let looked_into = inner.as_deref().unwrap_or(&text);
        let shown = redact(looked_into);
        if inner.is_none() && matches!(shown, Cow::Borrowed(_)) {
            return None;
        }
        let written = serde_json::to_string(&shown).ok()?;
        let within = written.strip_prefix('"')?.strip_suffix('"')?;
        Some(within.to_owned())
    }
}

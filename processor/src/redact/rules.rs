//! The built-in rules, and the arithmetic that tells a card number from an order number.

use std::ops::Range;

use super::patterns;

/// Returns the part of a match that is a secret, `None` if it only looks like one: a function of
/// the whole text and the place of the match.
pub(super) type Check = fn(&[u8], Range<usize>) -> Option<Range<usize>>;

/// What to look for.
pub(super) struct Shape {
    pub(super) find: String,
    pub(super) check: Option<Check>,
}

/// A rule that is on unless switched off.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    pub(super) shapes: fn() -> Vec<Shape>,
    /// Masks that keep it out of templates: placeholder and pattern. None where the default masks
    /// of training do so already.
    pub(super) masks: fn() -> Vec<(&'static str, String)>,
}

/// In this order: what spans most comes first.
pub(super) const BUILT_IN: [BuiltIn; 9] = [
    BuiltIn {
        name: "private-key",
        shapes: || vec![plain(patterns::PRIVATE_KEY)],
        masks: || vec![("private-key", patterns::PRIVATE_KEY.to_owned())],
    },
    BuiltIn {
        name: "password",
        shapes: || patterns::passwords().into_iter().map(pair).collect(),
        masks: patterns::password_masks,
    },
    BuiltIn {
        name: "token",
        shapes: || {
            let headers = patterns::headers();
            let patterns = headers.iter().map(String::as_str).chain([patterns::JWT]);
            patterns.map(plain).collect()
        },
        masks: || {
            let headers = patterns::headers();
            let patterns = headers.iter().map(String::as_str).chain([patterns::JWT]);
            patterns
                .map(|pattern| ("token", pattern.replace("(?P<secret>", "(?:")))
                .collect()
        },
    },
    BuiltIn {
        name: "api-key",
        shapes: || vec![plain(patterns::API_KEY)],
        masks: || vec![("api-key", patterns::API_KEY.to_owned())],
    },
    BuiltIn {
        name: "secret",
        shapes: || patterns::secrets().into_iter().map(pair).collect(),
        masks: patterns::secret_masks,
    },
    BuiltIn {
        name: "email",
        shapes: || vec![checked(patterns::EMAIL, email)],
        // `email` and `url` of the default masks.
        masks: Vec::new,
    },
    BuiltIn {
        name: "iban",
        shapes: || vec![checked(patterns::IBAN, iban)],
        masks: || vec![("iban", patterns::IBAN_MASK.to_owned())],
    },
    BuiltIn {
        name: "card",
        shapes: || vec![checked(patterns::CARD, card)],
        // `num` of the default masks.
        masks: Vec::new,
    },
    BuiltIn {
        name: "ssn",
        shapes: || vec![checked(patterns::SSN, ssn)],
        masks: Vec::new,
    },
];

fn plain(find: &str) -> Shape {
    Shape {
        find: find.to_owned(),
        check: None,
    }
}

fn checked(find: &str, check: Check) -> Shape {
    Shape {
        find: find.to_owned(),
        check: Some(check),
    }
}

fn pair(find: String) -> Shape {
    let check = find.ends_with(patterns::BARE).then_some(value as Check);
    Shape { find, check }
}

/// A value without quotes, up to the name of the next: `a` of `a&user=ann` and of `a;user=ann`,
/// but all of `a&b`.
fn value(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let found = &text[span.clone()];
    let names_next = |at: &usize| {
        let rest = &found[at + 1..];
        let of_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_.%-".contains(byte);
        let length = rest.iter().take_while(of_name).count();
        length > 0 && rest.get(length) == Some(&b'=')
    };
    let mut signs = (0..found.len()).filter(|at| b"&;,".contains(&found[*at]));
    let end = signs.find(names_next).unwrap_or(found.len());
    Some(span.start..span.start + end)
}

/// Units of systemd are named like addresses: `user@1000.service`.
const UNIT_TYPES: [&str; 11] = [
    "automount",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "socket",
    "swap",
    "target",
    "timer",
];

/// Not an address: a unit, or the `user@host:port/…` of a connection.
fn email(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let found = &text[span.clone()];
    let last = found.rsplit(|byte| *byte == b'.').next()?;
    if UNIT_TYPES.iter().any(|unit| unit.as_bytes() == last) {
        return None;
    }
    if let Some(after) = text[span.end..].strip_prefix(b":") {
        let digits = after
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits > 0 && after.get(digits) == Some(&b'/') {
            return None;
        }
    }
    Some(span)
}

/// A number of a known network's length and range that passes Luhn's test and is no part of a
/// longer number.
fn card(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    if is_within_number(text, &span) {
        return None;
    }
    let digits: Vec<u32> = text[span.clone()]
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .map(|byte| u32::from(byte - b'0'))
        .collect();
    let head = |count: usize| {
        digits
            .iter()
            .take(count)
            .fold(0, |sum, digit| sum * 10 + digit)
    };
    let known = matches!(
        (head(4), digits.len()),
        (4000..=4999, 13 | 16 | 19)
            | (5100..=5599 | 2221..=2720 | 3528..=3589, 16)
            | (3400..=3499 | 3700..=3799, 15)
            | (3000..=3059 | 3600..=3699 | 3800..=3999, 14)
            | (6011 | 6440..=6599 | 6200..=6299, 16..=19)
    );
    (known && luhn(&digits)).then_some(span)
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match place % 2 {
            0 => *digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Digits beside a match, past a point or a hyphen: it is the fraction of a number or a piece of
/// an id.
fn is_within_number(text: &[u8], span: &Range<usize>) -> bool {
    let joins = |sign: Option<&u8>, digit: Option<&u8>| {
        sign.is_some_and(|sign| matches!(sign, b'.' | b'-'))
            && digit.is_some_and(u8::is_ascii_alphanumeric)
    };
    let before = &text[..span.start];
    let before = (before.last(), before.iter().rev().nth(1));
    let after = &text[span.end..];
    joins(before.0, before.1) || joins(after.first(), after.get(1))
}

/// Lengths of IBANs by country.
#[rustfmt::skip]
const IBAN_LENGTHS: [(&[u8; 2], usize); 62] = [
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16),
    (b"BG", 22), (b"BH", 22), (b"BR", 29), (b"CH", 21), (b"CY", 28), (b"CZ", 24), (b"DE", 22),
    (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FO", 18),
    (b"FR", 27), (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28),
    (b"HR", 21), (b"HU", 28), (b"IE", 22), (b"IL", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30),
    (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LI", 21), (b"LT", 20), (b"LU", 20), (b"LV", 21),
    (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MT", 31), (b"NL", 18), (b"NO", 15),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22),
    (b"SA", 24), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"TR", 26),
];

/// The leading part that has its country's length and passes the test of ISO 7064.
fn iban(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let found = &text[span.clone()];
    let (_, length) = IBAN_LENGTHS
        .iter()
        .find(|(country, _)| found.starts_with(*country))?;
    let signs = |(_, byte): &(usize, &u8)| byte.is_ascii_alphanumeric();
    let (last, _) = found.iter().enumerate().filter(signs).nth(length - 1)?;
    let end = span.start + last + 1;
    if text.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let signs = found[..=last]
        .iter()
        .filter(|byte| byte.is_ascii_alphanumeric());
    let (head, tail): (Vec<_>, Vec<_>) = signs.enumerate().partition(|(place, _)| *place < 4);
    let remainder = tail
        .into_iter()
        .chain(head)
        .fold(0, |sum: u32, (_, byte)| match byte {
            b'0'..=b'9' => (sum * 10 + u32::from(byte - b'0')) % 97,
            _ => (sum * 100 + u32::from(byte - b'A') + 10) % 97,
        });
    (remainder == 1).then_some(span.start..end)
}

/// A number that the Social Security Administration may have issued, and no part of a longer one.
fn ssn(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let issued = |(area, group, serial): (&[u8], &[u8], &[u8])| {
        area != b"000" && area != b"666" && area[0] != b'9' && group != b"00" && serial != b"0000"
    };
    let found = &text[span.clone()];
    let parts = (&found[..3], &found[4..6], &found[7..]);
    (!is_within_number(text, &span) && issued(parts)).then_some(span)
}

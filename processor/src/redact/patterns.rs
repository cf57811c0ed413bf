//! The patterns of the built-in rules.
//!
//! They compile both for bytes (what leaves) and for text (masks), so they name their characters
//! one by one: no `\s`, `\w` or bare `\b`. In bytes a negated class takes characters that are not
//! ASCII byte by byte; every such run ends at an ASCII character, so none is split.

/// Names of passwords in `name=value`, whatever stands before them.
const PASSWORD_KEY: &str =
    r"(?i:pass(?:word|wd|phrase|code)|passwort|kennwort|pwd|[_.-]pass)(?i:[_-]?hash)?";
/// Names of other secrets.
const SECRET_KEY: &str = concat!(
    r"(?i:secret|token|signature|credentials?|[?&]sig|",
    r"(?:api|access|secret|private|auth|account|encryption|signing)[_-]?key(?:[_-]?id)?)",
);
/// Between a name and its value: a closing quote or bracket, then the sign.
const SEPARATOR: &str = r#"(?:\\*["'])?\]?[ \t]*(?:=+>?|:=?|%3[ADad])[ \t]*"#;
const EQUALS: &str = r#"(?:\\*["'])?\]?[ \t]*(?:=+>?|:=|%3[Dd])[ \t]*"#;

/// Values in quotes, up to the closing one or the end of the line; then in quotes that stand in
/// a JSON string themselves.
const QUOTED: [&str; 3] = [
    r#""(?P<secret>(?:[^"\\\r\n]|\\[^\r\n])+)"#,
    r"'(?P<secret>(?:[^'\\\r\n]|\\[^\r\n])+)",
    r#"\\+"(?P<secret>(?:[^"\\]|\\\\(?:\\["\\])?)+)"#,
];
/// A value without quotes, less the punctuation after it. It does not begin like a placeholder.
/// The name of a next value may be in it; see `rules::value`.
pub(super) const BARE: &str = concat!(
    r#"(?P<secret>(?:[^ \t\r\n"'\\&;<>=]|\\[^ \t\r\n"'])"#,
    r#"(?:(?:[^ \t\r\n"'\\]|\\[^ \t\r\n"'])*[^ \t\r\n"'\\&;<>,.)\]}])?)"#,
);
/// A value after `token: `, where prose may follow as well: it holds a digit or is long.
const TELLING: &str = r"(?P<secret>[A-Za-z+/_.=~-]*[0-9][A-Za-z0-9+/_.=~:-]*|[A-Za-z+/_.=~-]{20,})";

/// What may stand before a name within a word. Masks begin there, lest a path, an id or a quoted
/// string that begins earlier takes the name away from its value.
const WORD_BEFORE: &str = r#"["']?[A-Za-z0-9_.@%+~/\\-]*["']?[A-Za-z0-9_.-]*"#;

pub(super) const PRIVATE_KEY: &str = concat!(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----",
    r"(?:[A-Za-z0-9+/=\\:,.() \t\r\n-]*?-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----",
    r"|[A-Za-z0-9+/=\\:,.() \t\r\n-]*)",
);

/// `name=value` in all its forms.
pub(super) fn passwords() -> Vec<String> {
    let mut patterns: Vec<_> = QUOTED
        .iter()
        .chain([&BARE])
        .map(|value| format!("{PASSWORD_KEY}{SEPARATOR}{value}"))
        .collect();
    patterns.extend([
        // In an element, and after a flag or a word.
        format!(r"{PASSWORD_KEY}>(?P<secret>[^<>\r\n]+)</[A-Za-z0-9_:.-]*{PASSWORD_KEY}>"),
        format!(r#"--[A-Za-z-]*{PASSWORD_KEY}[ \t]+(?P<secret>[^ \t\r\n"'<-][^ \t\r\n"']*)"#),
        format!(r#"{PASSWORD_KEY}[ \t]+(?:is[ \t]+)?["'](?P<secret>[^"'\r\n]+)["']"#),
        // In a URL, up to the last `@` before the path.
        format!(r#"{URL}[^ \t\r\n:/@"'<>]*:(?P<secret>[^ \t\r\n/"'<>][^ \t\r\n/"]*)@"#),
    ]);
    patterns
}

const URL: &str = r"[A-Za-z][A-Za-z0-9+.-]*:(?:\\?/){2}";

/// Masks for [`passwords`]. A URL with a password stays a `url`, as without.
pub(super) fn password_masks() -> Vec<(&'static str, String)> {
    let unnamed = [QUOTED[0], QUOTED[1], QUOTED[2], BARE].map(without_group);
    let values = unnamed.join("|");
    vec![
        (
            "password",
            format!("{WORD_BEFORE}{PASSWORD_KEY}{SEPARATOR}(?:{values})"),
        ),
        ("password", quoted_name(PASSWORD_KEY)),
        (
            "password",
            without_group(&format!(
                r#"--[A-Za-z-]*{PASSWORD_KEY}[ \t]+[^ \t\r\n"'<-][^ \t\r\n"']*"#
            )),
        ),
        (
            "url",
            format!(r#"{URL}[^ \t\r\n:/@"'<>]*:[^ \t\r\n/"'<>][^ \t\r\n/"]*@[^ \t\r\n"'<>\])]*"#),
        ),
    ]
}

pub(super) fn secrets() -> Vec<String> {
    let mut patterns: Vec<_> = QUOTED
        .iter()
        .map(|value| format!("{SECRET_KEY}{SEPARATOR}{value}"))
        .collect();
    patterns.extend([
        format!("{SECRET_KEY}{EQUALS}{BARE}"),
        format!("{SECRET_KEY}{SEPARATOR}{TELLING}"),
        format!(r"{SECRET_KEY}>(?P<secret>[^<>\r\n]+)</[A-Za-z0-9_:.-]*{SECRET_KEY}>"),
        format!(r#"--[A-Za-z-]*{SECRET_KEY}[ \t]+(?P<secret>[^ \t\r\n"'<-][^ \t\r\n"']*)"#),
    ]);
    patterns
}

pub(super) fn secret_masks() -> Vec<(&'static str, String)> {
    let quoted = QUOTED.map(without_group).join("|");
    let (bare, telling) = (without_group(BARE), without_group(TELLING));
    vec![
        (
            "secret",
            format!("{WORD_BEFORE}{SECRET_KEY}{SEPARATOR}(?:{quoted}|{telling})"),
        ),
        (
            "secret",
            format!("{WORD_BEFORE}{SECRET_KEY}{EQUALS}(?:{bare})"),
        ),
        ("secret", quoted_name(SECRET_KEY)),
    ]
}

/// A quoted string that ends at a name and its sign, and the one that is the value: quotes that do
/// not pair as they seem to.
fn quoted_name(key: &str) -> String {
    format!(r#""[^"\r\n]*{key}[ \t]*[:=][ \t]*"[^"\r\n]*"?"#)
}

fn without_group(pattern: &str) -> String {
    pattern.replace("(?P<secret>", "(?:")
}

/// Credentials in headers.
pub(super) fn headers() -> Vec<String> {
    let schemes = r"(?i:bearer|basic|digest|negotiate|ntlm|token|apikey)[ \t]+";
    vec![
        format!(
            r#"(?i:authorization){SEPARATOR}(?:\\*["'])?(?P<secret>{schemes}[^ \t\r\n"'\\,;<>]+)"#
        ),
        format!(r#"(?i:authorization){SEPARATOR}(?:\\*["'])?{TELLING}"#),
        format!(r"(?i:bearer)[ \t]+{TELLING}"),
        r"(?i:basic)[ \t]+(?P<secret>[A-Za-z0-9+/]{8,}={1,2}|[A-Za-z0-9+/]{20,})".to_owned(),
        format!(
            r#"(?i:cookie){SEPARATOR}(?:\\*["'])?(?P<secret>[^ \t\r\n"'\\=;<>]+=[^\r\n"'\\<>]+)"#
        ),
    ]
}

/// JSON Web Tokens, also ones that are cut: all begin with the base64 of `{"`.
pub(super) const JWT: &str = r"(?-u:\b)eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]+)*";

/// Keys that tell by their prefix whose they are.
pub(super) const API_KEY: &str = concat!(
    r"(?-u:\b)(?:",
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}", // Amazon Web Services
    r"|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}",
    r"|gl(?:pat|dt|rt|cbt|ptt|soat)-[A-Za-z0-9_-]{16,}",
    r"|xox[abceoprs]-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{8,}", // Slack
    r"|hooks\.slack\.com/services/[A-Za-z0-9/]+",
    r"|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{10,}|GOCSPX-[A-Za-z0-9_-]{16,}", // Google
    r"|[prs]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}",           // Stripe
    r"|sk-(?:proj-|ant-[a-z0-9]+-|svcacct-)?[A-Za-z0-9]{20,}[A-Za-z0-9_-]*",
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", // SendGrid
    r"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|hf_[A-Za-z0-9]{30,}",
    r"|do[opr]_v1_[a-f0-9]{32,}|hv[bs]\.[A-Za-z0-9_-]{20,}",
    r"|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{20,}|dapi[a-f0-9]{32,}",
    r"|AGE-SECRET-KEY-1[A-Z0-9]{20,}",
    r")",
);

/// Digits in one run, in fours, or in the groups of American Express.
pub(super) const CARD: &str = concat!(
    r"(?-u:\b)(?:[0-9]{13,19}|[0-9]{4}(?:[ -][0-9]{4}){2}[ -][0-9]{1,4}(?:[ -][0-9]{1,3})?",
    r"|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})(?-u:\b)",
);

pub(super) const EMAIL: &str = r#"[^\x00-\x20"'(),/:;<=>?@\[\\\]{|}\x7f]+@(?:[^\x00-,./:-@\[-`{-\x7f]+\.)+[A-Za-z]{2,}(?-u:\b)"#;

pub(super) const IBAN: &str =
    r"(?-u:\b)[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?-u:\b)";
/// As a mask, without its checksum: what has this shape is an id in any case.
pub(super) const IBAN_MASK: &str = r"(?-u:\b)[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}(?-u:\b)";

/// US social security numbers, written with hyphens.
pub(super) const SSN: &str = r"(?-u:\b)[0-9]{3}-[0-9]{2}-[0-9]{4}(?-u:\b)";

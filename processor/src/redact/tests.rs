//! What is masked and what is not.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn redactor() -> Redactor {
    Redactor::new(&RedactionConfig::default()).unwrap()
}

fn check(text: &str, expected: Expect) {
    let redactor = redactor();
    let shown = redactor.text(text);
    expected.assert_eq(&shown);
    assert_eq!(redactor.text(&shown), shown, "redacting twice changes more");
}

#[test]
fn passwords_are_masked_in_every_form() {
    check(
        "login password=hunter2, user=ann; password=a&b;c,user=ann",
        expect!["login password=<password>, user=ann; password=<password>,user=ann"],
    );
    check(
        r#"{"user":"ann","password":"hun\"ter 2","x":1}"#,
        expect![[r#"{"user":"ann","password":"<password>","x":1}"#]],
    );
    check(
        r#"body {\"db_password\":\"hunter2\",\"x\":1}"#,
        expect![[r#"body {\"db_password\":\"<password>\",\"x\":1}"#]],
    );
    check("PASSWD: hunter2.", expect!["PASSWD: <password>."]);
    check(
        "Server=db;Pwd=a,b)c;Timeout=3",
        expect!["Server=db;Pwd=<password>;Timeout=3"],
    );
    check(
        "params[\"password\"] => 'x y' and passphrase := z",
        expect!["params[\"password\"] => '<password>' and passphrase := <password>"],
    );
    check(
        "<dbPassword>hunter2</dbPassword> mysqldump --password hunter2 --all",
        expect!["<dbPassword><password></dbPassword> mysqldump --password <password> --all"],
    );
    check(
        "retry with password 'hunter 2' at /login?password=a%20b&next=/x",
        expect!["retry with password '<password>' at /login?password=<password>&next=/x"],
    );
    check(
        "cut here: password=\"hunter",
        expect!["cut here: password=\"<password>"],
    );
}

#[test]
fn passwords_in_urls_are_masked_and_the_rest_of_the_url_is_not() {
    check(
        "cannot connect to postgres://app:p@ss:w)rd@db.example.com:5432/shop?x=1",
        expect!["cannot connect to postgres://app:<password>@db.example.com:5432/shop?x=1"],
    );
    check(
        r"redis://:s3cret@cache and amqp:\/\/u:p@mq",
        expect![[r"redis://:<password>@cache and amqp:\/\/u:<password>@mq"]],
    );
    check(
        "GET http://host:8080/users and https://example.com/a@b",
        expect!["GET http://host:8080/users and https://example.com/a@b"],
    );
}

#[test]
fn tokens_and_keys_are_masked() {
    check(
        "Authorization: Bearer abc.def-1 sent; bearer a1b2c3d4; basic dXNlcjpwYXNz=",
        expect!["Authorization: <token> sent; bearer <token>; basic <token>"],
    );
    check(
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl ok",
        expect!["jwt <token> ok"],
    );
    check("cut eyJhbGciOiJIUzI1NiJ9.eyJz", expect!["cut <token>"]);
    check(
        "Set-Cookie: sid=31d4d96e; Path=/",
        expect!["Set-Cookie: <token>"],
    );
    check(
        "AKIAIOSFODNN7EXAMPLE ghp_abcdefghijklmnopqrstuvwxyz0123456789 xoxb-123456789012-abcdef",
        expect!["<api-key> <api-key> <api-key>"],
    );
    check(
        "api_key=abc aws_secret_access_key = wJalr/K7+x token: 9f86d081 X-Api-Key: q1",
        expect![
            "api_key=<secret> aws_secret_access_key = <secret> token: <secret> X-Api-Key: <secret>"
        ],
    );
    check(
        "pem -----BEGIN RSA PRIVATE KEY-----\nMIIE+/=\n-----END RSA PRIVATE KEY----- done",
        expect!["pem <private-key> done"],
    );
    check(
        "pem -----BEGIN PRIVATE KEY-----\\nMIIEvQ",
        expect!["pem <private-key>"],
    );
}

#[test]
fn personal_data_is_masked() {
    check(
        "mail ann.b+c@mail.example.com, jürgen@müller.example",
        expect!["mail <email>, <email>"],
    );
    check(
        "card 4111111111111111, 4111 1111 1111 1111, 5500-0000-0000-0004, 3782 822463 10005",
        expect!["card <card>, <card>, <card>, <card>"],
    );
    check(
        "iban DE89370400440532013000 or GB29 NWBK 6016 1331 9268 19 PAID",
        expect!["iban <iban> or <iban> PAID"],
    );
    check("ssn 536-22-1234", expect!["ssn <ssn>"]);
}

#[test]
fn ordinary_lines_stay_as_they_are() {
    let redactor = redactor();
    for text in [
        "unexpected token: `}` in line 4",
        "invalid token: expired",
        "password expired for user ann",
        "tokens=512 max_tokens: 4096",
        "basic authentication failed, bearer credentials missing",
        "secret \"db-creds\" not found",
        "order 4111111111111112 of 2025-12-24, blk_-1608999687919862906",
        "score 0.4539578763621486 at 1766831400000 id 550e8400-e29b-41d4-a716-446655440000",
        "user@1000.service started, com.example.Order@1a2b3c, lodash@4.17.21",
        "connected as logguard@db.example.com:5432/logguard",
        "part 000-12-3456 of 123-45-67890 and 1-123-45-6789",
        "DE00370400440532013000 XX89370400440532013000",
        "User session created - session_id: sess_570939, user_id: user_1234",
        "signature: valid, compass: north, bypass=1 passed=3 failed=0",
        "keyboard=us monkey=1 sk-learn-model-selection-pipeline",
        "",
        "ünïcode – 漢字",
    ] {
        assert_eq!(redactor.text(text), text);
        assert!(matches!(redactor.text(text), Cow::Borrowed(_)));
    }
}

#[test]
fn payloads_are_masked_whether_they_are_json_or_not() {
    let redactor = redactor();
    let check = |payload: &[u8], expected: &[u8]| {
        let shown = redactor.payload(payload);
        let (shown, expected) = (
            String::from_utf8_lossy(&shown),
            String::from_utf8_lossy(expected),
        );
        assert_eq!(shown, expected);
    };
    check(
        br#"{"message":"mail ann\u0040example.com \"x\"","n":1}"#,
        br#"{"message":"mail <email> \"x\"","n":1}"#,
    );
    // JSON in JSON in JSON.
    check(
        br#"{"message":"got {\"body\":\"{\\\"password\\\":\\\"a\\\\\\\"b\\\"}\"}"}"#,
        br#"{"message":"got {\"body\":\"{\\\"password\\\":\\\"<password>\\\"}\"}"}"#,
    );
    check(
        br#"{"message":"a\tb pass\u0077ord=hunter2 c"#,
        br#"{"message":"a\tb password=<password> c"#,
    );
    check(br#"{"password":"hunt"#, br#"{"password":"<password>"#);
    check(
        b"\xff\xfe password=h\xffunter2 \xffann@example.com",
        b"\xff\xfe password=<password> <email>",
    );
    check(
        br#"{"message":"fine \u00e9"}"#,
        br#"{"message":"fine \u00e9"}"#,
    );
    check(
        b"\"cut escape password=x1\\u00",
        b"\"cut escape password=<password>\\u00",
    );
}

#[test]
fn rules_are_added_and_switched_off() {
    let config = |text: &str| -> RedactionConfig { toml::from_str(text).unwrap() };
    let shown = |text: &str, line: &str| {
        let redactor = Redactor::new(&config(text)).unwrap();
        redactor.text(line).into_owned()
    };
    let line = "CUST-42 ann@example.com password=x";
    assert_eq!(
        shown(
            "[[rules]]\nname = 'customer'\npattern = 'CUST-[0-9]+'",
            line
        ),
        "<customer> <email> password=<password>"
    );
    assert_eq!(
        shown(
            "[[rules]]\nname = 'n'\npattern = 'CUST-(?P<secret>[0-9]+)'",
            line
        ),
        "CUST-<n> <email> password=<password>"
    );
    assert_eq!(
        shown("disable = ['email']", line),
        "CUST-42 ann@example.com password=<password>"
    );
    assert_eq!(shown("enabled = false", line), line);
    let off = Redactor::new(&config("enabled = false")).unwrap();
    assert!(off.masks().is_empty());
}

#[test]
fn rules_that_cannot_be_used_are_named() {
    let refused = |text: &str| {
        let config: RedactionConfig = toml::from_str(text).unwrap();
        Redactor::new(&config).unwrap_err().to_string()
    };
    let rule = |name: &str, pattern: &str| {
        refused(&format!(
            "[[rules]]\nname = '{name}'\npattern = '{pattern}'"
        ))
    };
    assert!(rule("open", "(a").contains("`open`"));
    assert!(rule("empty", "a*").contains("the empty text"));
    assert!(rule("a b", "a").contains("its name must be"));
    assert!(rule("huge", "(?:(?:a{1000}){1000}){1000}").contains("`huge`"));
    let error = refused("disable = ['emails']");
    assert!(
        error.contains("`emails`") && error.contains("email, iban"),
        "{error}"
    );
}

/// Were what only looks like a secret searched through again and again, this would take minutes.
#[test]
fn long_lines_that_only_look_like_secrets_are_read_once() {
    let redactor = redactor();
    let address = format!("{}@x.service", "a".repeat(500_000));
    assert!(matches!(redactor.text(&address), Cow::Borrowed(_)));
    let masked = r#"password":"<password>\""#.repeat(20_000);
    assert_eq!(redactor.text(&masked), masked);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_twice_is_once(payload: Vec<u8>) {
        let redactor = redactor_shared();
        let once = redactor.bytes(&payload).into_owned();
        prop_assert_eq!(redactor.bytes(&once).into_owned(), once);
        drop(redactor.payload(&payload));
    }

    #[test]
    fn pieces_of_secrets_in_any_order_are_masked_in_one_go(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..8)
    ) {
        let redactor = redactor_shared();
        let text = pieces.concat();
        let once = redactor.text(&text).into_owned();
        prop_assert_eq!(redactor.text(&once).into_owned(), once);
        let payload = redactor.payload(text.as_bytes()).into_owned();
        prop_assert!(String::from_utf8(payload).is_ok());
    }
}

const PIECES: &[&str] = &[
    "password",
    "token",
    "=",
    ": ",
    "\"",
    "\\\"",
    "\\",
    "'",
    "hunter2",
    "<password>",
    "<",
    ">",
    "é",
    "ann@example.com",
    " ",
    "\n",
    "://u:",
    "@",
    "4111111111111111",
    "Authorization: Bearer ",
    "--",
    "-----BEGIN PRIVATE KEY-----",
    "\\u0041",
    "\\u00",
    "{",
    "}",
    ",",
    "eyJhbGciOiJIUzI1NiJ9",
    "&",
];

fn redactor_shared() -> &'static Redactor {
    static REDACTOR: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(redactor);
    &REDACTOR
}

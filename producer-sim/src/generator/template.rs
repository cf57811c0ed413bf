//! Message templates: text with `{name}` variables, compiled once and rendered without allocating.
//!
//! Nothing here knows which messages exist (`messages.rs`) or when they are written.

use std::fmt::Write as _;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What one rendering is told beside its random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    /// How far its incident is, 0 to 1; what `{fill}` rises with.
    pub(super) progress: f64,
    /// The service that `{peer}` names.
    pub(super) peer: &'static str,
}

/// A compiled message template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Var(Var),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Var {
    Attempt,
    Bytes,
    Email,
    Endpoint,
    Fill,
    Hex,
    Host,
    Ip,
    Method,
    Millis,
    Money,
    Number,
    Order,
    Peer,
    Percent,
    Port,
    Region,
    Session,
    Sku,
    SlowMillis,
    Small,
    Table,
    Transaction,
    User,
    Uuid,
}

const VARS: [(&str, Var); 25] = [
    ("attempt", Var::Attempt),
    ("bytes", Var::Bytes),
    ("email", Var::Email),
    ("endpoint", Var::Endpoint),
    ("fill", Var::Fill),
    ("hex", Var::Hex),
    ("host", Var::Host),
    ("ip", Var::Ip),
    ("method", Var::Method),
    ("ms", Var::Millis),
    ("money", Var::Money),
    ("n", Var::Number),
    ("order", Var::Order),
    ("peer", Var::Peer),
    ("pct", Var::Percent),
    ("port", Var::Port),
    ("region", Var::Region),
    ("session", Var::Session),
    ("sku", Var::Sku),
    ("slow_ms", Var::SlowMillis),
    ("small", Var::Small),
    ("table", Var::Table),
    ("txn", Var::Transaction),
    ("user", Var::User),
    ("uuid", Var::Uuid),
];

const ENDPOINTS: [&str; 8] = [
    "/v1/login",
    "/v1/orders",
    "/v1/orders/search",
    "/v1/cart",
    "/v1/payments",
    "/v1/users/me",
    "/v1/stock",
    "/v2/recommendations",
];
const METHODS: [&str; 4] = ["GET", "GET", "POST", "PUT"];
const REGIONS: [&str; 4] = ["eu-west", "eu-north", "us-east", "ap-south"];
const TABLES: [&str; 6] = [
    "users",
    "orders",
    "stock_levels",
    "payments",
    "sessions",
    "outbox",
];

impl Template {
    /// Compiles `text`. A name that is no variable stays as written; a test keeps our own free of it.
    pub(super) fn compile(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut parts = text.split('{');
        let literal = |pieces: &mut Vec<Piece>, text: &str| {
            if !text.is_empty() {
                pieces.push(Piece::Text(text.into()));
            }
        };
        literal(&mut pieces, parts.next().unwrap_or_default());
        for part in parts {
            let found = part.split_once('}').and_then(|(name, rest)| {
                let (_, var) = VARS.iter().find(|(known, _)| *known == name)?;
                Some((*var, rest))
            });
            if let Some((var, rest)) = found {
                pieces.push(Piece::Var(var));
                literal(&mut pieces, rest);
            } else {
                pieces.push(Piece::Text(format!("{{{part}").into()));
            }
        }
        Self(pieces)
    }

    /// Appends one rendering to `out`.
    pub(super) fn render(&self, out: &mut String, rng: &mut ChaCha8Rng, scene: Scene) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                // Writing into a `String` cannot fail.
                Piece::Var(var) => var.render(out, rng, scene).unwrap_or_default(),
            }
        }
    }
}

impl Var {
    fn render(self, out: &mut String, rng: &mut ChaCha8Rng, scene: Scene) -> std::fmt::Result {
        match self {
            Self::Attempt => write!(out, "{}", rng.random_range(1..=5_u32)),
            Self::Bytes => write!(out, "{}", rng.random_range(120..=60_000_u32)),
            Self::Email => write!(out, "u{}@example.org", rng.random_range(1_000..=9_999_u32)),
            Self::Endpoint => out.write_str(pick(&ENDPOINTS, rng)),
            Self::Fill => write!(
                out,
                "{:.1}",
                scene
                    .progress
                    .mul_add(28.0, 71.0 + rng.random_range(0.0..1.0))
            ),
            Self::Hex => write!(out, "{:012x}", rng.random::<u64>() >> 16),
            Self::Host => write!(
                out,
                "node-{:02}.{}",
                rng.random_range(1..=24_u32),
                pick(&REGIONS, rng)
            ),
            Self::Ip => {
                let [a, b, c, _] = rng.random::<u32>().to_be_bytes();
                write!(out, "10.{a}.{b}.{c}")
            }
            Self::Method => out.write_str(pick(&METHODS, rng)),
            Self::Millis => write!(out, "{}", rng.random_range(1..=240_u32)),
            Self::Money => write!(
                out,
                "{}.{:02} EUR",
                rng.random_range(1..=900_u32),
                rng.random_range(0..100_u32)
            ),
            Self::Number => write!(out, "{}", rng.random_range(1..=5_000_u32)),
            Self::Order => write!(out, "ord-{}", rng.random_range(100_000..=999_999_u32)),
            Self::Peer => out.write_str(scene.peer),
            Self::Percent => write!(out, "{}", rng.random_range(50..=95_u32)),
            Self::Port => write!(out, "{}", rng.random_range(1_024..=65_000_u32)),
            Self::Region => out.write_str(pick(&REGIONS, rng)),
            Self::Session => write!(out, "sess_{:08x}", rng.random::<u32>()),
            Self::Sku => write!(out, "SKU-{:05}", rng.random_range(0..100_000_u32)),
            Self::SlowMillis => write!(out, "{}", rng.random_range(400..=9_000_u32)),
            Self::Small => write!(out, "{}", rng.random_range(1..=40_u32)),
            Self::Table => out.write_str(pick(&TABLES, rng)),
            Self::Transaction => write!(out, "txn_{:010x}", rng.random::<u64>() >> 24),
            Self::User => write!(out, "{}", rng.random_range(1_000..=99_999_u32)),
            Self::Uuid => {
                let (high, low) = (rng.random::<u64>(), rng.random::<u64>());
                write!(
                    out,
                    "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
                    high >> 32,
                    (high >> 16) & 0xffff,
                    high & 0xfff,
                    low >> 52,
                    low & 0xffff_ffff_ffff
                )
            }
        }
    }
}

/// Returns one of `words`, each equally likely; the empty string if there are none.
pub(super) fn pick(words: &[&'static str], rng: &mut ChaCha8Rng) -> &'static str {
    if words.is_empty() {
        return "";
    }
    words
        .get(rng.random_range(0..words.len()))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn render(text: &str) -> String {
        let mut out = String::new();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let scene = Scene {
            progress: 1.0,
            peer: "auth-service",
        };
        Template::compile(text).render(&mut out, &mut rng, scene);
        out
    }

    #[test]
    fn text_around_variables_is_kept() {
        assert_eq!(
            render("call to {peer} failed"),
            "call to auth-service failed"
        );
        assert_eq!(render("{peer}{peer}"), "auth-serviceauth-service");
        assert_eq!(render("plain"), "plain");
    }

    #[test]
    fn unknown_names_stay_visible() {
        assert_eq!(render("a {nonsense} b {open"), "a {nonsense} b {open");
    }

    #[test]
    fn every_variable_renders_something() {
        for (name, _) in VARS {
            let text = render(&format!("<{{{name}}}>"));
            assert!(text.len() > 2 && !text.contains('{'), "{name}: {text}");
        }
    }

    #[test]
    fn fill_rises_with_progress_and_stays_a_percentage() {
        let full: f64 = render("{fill}").parse().unwrap();
        assert!((99.0..=100.0).contains(&full), "{full}");
    }
}

//! Grafana's side of a dashboard, as its documentation of the PostgreSQL data source has it: the
//! queries of a dashboard, variables and macros put in, and what a visualisation wants of an answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use regex::{Captures, Regex};
use serde_json::Value;

/// What a query is for, which decides what its answer must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A column `time`, one number or more, and labels; in order of time.
    TimeSeries,
    /// One number.
    Stat,
    /// Any rows.
    Table,
    /// A column `time` and a text.
    Annotation,
    /// One column of values.
    Variable,
}

/// A query of a dashboard.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// Where it stands, for a person.
    pub(crate) place: String,
    pub(crate) purpose: Use,
    pub(crate) sql: String,
}

/// A variable of a dashboard.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// All of its values are chosen; else the first.
    pub(crate) all: bool,
    pub(crate) query: Query,
}

/// Returns the variables of a dashboard, in its order: later ones may use earlier ones.
pub(crate) fn variables(dashboard: &Value) -> Vec<Variable> {
    let list = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |it: &Value| {
        assert_eq!(it["type"], "query", "{it}");
        assert_eq!(
            it["query"], it["definition"],
            "the two texts of a variable's query"
        );
        let name = it["name"].as_str().unwrap().to_owned();
        Variable {
            all: it["includeAll"] == true && it["current"]["value"][0] == "$__all",
            query: Query {
                place: format!("variable {name}"),
                purpose: Use::Variable,
                sql: it["query"].as_str().unwrap().to_owned(),
            },
            name,
        }
    };
    list.iter().map(variable).collect()
}

/// Returns the panels of a dashboard that show something.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().filter(|it| it["type"] != "row").collect()
}

/// Returns the queries of all panels and annotations.
pub(crate) fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        let kind = panel["type"].as_str().unwrap();
        let (format, purpose) = match kind {
            "timeseries" => ("time_series", Use::TimeSeries),
            "stat" => ("table", Use::Stat),
            "table" => ("table", Use::Table),
            other => panic!("nobody says here what a `{other}` panel wants of its query"),
        };
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["format"], format, "{}", panel["title"]);
            queries.push(query(format!("panel {}", panel["title"]), purpose, target));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        let place = format!("annotation {}", annotation["name"]);
        queries.push(query(place, Use::Annotation, &annotation["target"]));
    }
    queries
}

fn query(place: String, purpose: Use, target: &Value) -> Query {
    assert_eq!(target["rawQuery"], true, "{place}");
    let sql = target["rawSql"].as_str().unwrap().to_owned();
    Query {
        place,
        purpose,
        sql,
    }
}

/// The time range, the interval and the variables that queries are run with.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    /// What `$__interval` stands for, in seconds.
    pub(crate) interval_s: u32,
    pub(crate) variables: BTreeMap<String, Vec<String>>,
}

impl Context {
    /// Returns the SQL that Grafana would send: first variables, then macros.
    pub(crate) fn expand(&self, sql: &str) -> String {
        let sql = self.macros(&self.variables_of(sql));
        assert!(!sql.contains('$'), "something is left to expand: {sql}");
        sql
    }

    fn variables_of(&self, sql: &str) -> String {
        let sql = sql.replace("$__interval_ms", &(self.interval_s * 1_000).to_string());
        let sql = sql.replace("$__interval", &format!("{}s", self.interval_s));
        let variable = Regex::new(r"\$\{(\w+):sqlstring\}").unwrap();
        let quoted = |found: &Captures<'_>| {
            let values = self.variables.get(&found[1]);
            let values = values.unwrap_or_else(|| panic!("no variable `{}`", &found[1]));
            let quoted: Vec<_> = values
                .iter()
                .map(|it| format!("'{}'", it.replace('\'', "''")))
                .collect();
            quoted.join(",")
        };
        variable.replace_all(&sql, quoted).into_owned()
    }

    /// The arguments of a macro end at the first closing bracket, as they do in Grafana.
    fn macros(&self, sql: &str) -> String {
        let call = Regex::new(r"\$(\w+)\(([^)]*)\)").unwrap();
        let expand = |found: &Captures<'_>| {
            let args: Vec<_> = found[2].split(',').map(str::trim).collect();
            self.macro_call(&found[1], &args)
        };
        call.replace_all(sql, expand).into_owned()
    }

    fn macro_call(&self, name: &str, args: &[&str]) -> String {
        let time = |it: DateTime<Utc>| it.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let (from, to) = (time(self.from), time(self.to));
        match (name, args) {
            ("__time", [column]) => format!(r#"{column} AS "time""#),
            ("__timeEpoch", [column]) => format!(r#"extract(epoch from {column}) as "time""#),
            ("__timeFilter", [column]) => format!("{column} BETWEEN '{from}' AND '{to}'"),
            ("__timeFrom", [""]) => format!("'{from}'"),
            ("__timeTo", [""]) => format!("'{to}'"),
            ("__timeGroup", [column, interval, ..]) => {
                let seconds = seconds(interval);
                format!("floor(extract(epoch from {column})/{seconds})*{seconds}")
            }
            ("__timeGroupAlias", _) => {
                format!(r#"{} AS "time""#, self.macro_call("__timeGroup", args))
            }
            _ => panic!("unknown macro `${name}` of {} arguments", args.len()),
        }
    }
}

/// Returns the seconds of an interval such as `'1m'` or `30s`.
fn seconds(interval: &str) -> u32 {
    let interval = interval.trim_matches('\'');
    let unit = interval.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u32 = interval.strip_suffix(unit).unwrap().parse().unwrap();
    number
        * match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            other => panic!("unknown unit `{other}`"),
        }
}

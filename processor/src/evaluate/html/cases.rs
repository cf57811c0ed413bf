//! The windows that are shown whole.

use maud::{Markup, html};

use crate::evaluate::{Case, text::grouped};

/// So many of a list are open at once.
const OPEN: usize = 2;

/// Renders a list of windows.
pub(super) fn cases(id: &str, title: &str, note: &str, cases: &[Case]) -> Markup {
    html! {
        section.card id=(id) {
            h2 { (title) }
            p.note { (if cases.is_empty() { "There were none." } else { note }) }
            @for (number, shown) in cases.iter().enumerate() {
                details open[number < OPEN] {
                    (summary(shown))
                    div.body { (body(shown)) }
                }
            }
        }
    }
}

fn summary(shown: &Case) -> Markup {
    html! {
        summary {
            span.sev title="severity" { (format!("{:.2}", shown.severity)) }
            span.mono { (shown.start) }
            span.soft { (shown.stream) " · " (grouped(u64::from(shown.lines))) " lines" }
            @for name in &shown.anomaly_types { span.tag { (name) } }
            span.why {
                @match shown.reasons.first() {
                    Some(reason) => { (reason) },
                    None => { "nothing stood out" },
                }
            }
        }
    }
}

fn body(shown: &Case) -> Markup {
    html! {
        @if shown.reasons.len() > 1 {
            ul { @for reason in shown.reasons.iter().skip(1) { li { (reason) } } }
        }
        @if !shown.samples.is_empty() {
            h3 { "Lines" }
            @for sample in &shown.samples { pre.sample { (sample) } }
        }
        @if !shown.templates.is_empty() {
            h3 { "Templates, the most critical and rarest" }
            div.scroll { table {
                tbody { @for template in &shown.templates { tr {
                    td.left { span class=(template.level) { (template.level) } }
                    td.left { (template.service) }
                    td.left { code { (template.text) } }
                    td { (grouped(u64::from(template.lines))) }
                } } }
            } }
        }
        @if !shown.columns.is_empty() {
            h3 { "Columns furthest from usual" }
            div.scroll { table {
                thead { tr { th.left { "column" } th { "value" } th { "usual" } } }
                tbody { @for column in &shown.columns { tr {
                    td.left { code { (column.column) } }
                    td { (figure(column.value)) }
                    td { (figure(column.usual_low)) " to " (figure(column.usual_high)) }
                } } }
            } }
        }
    }
}

fn figure(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

//! What a window looked like, for the feature store: its feature row and its lines per template.

use serde::Serialize;

use super::{columns::FeaturesRow, json::Json};
use crate::{
    decode::Template,
    event::Level,
    model::ScoredWindow,
    sink::results::Features,
    window::{TemplateCount, WindowContent},
};

/// Most (service, template) pairs listed in a row, the most frequent ones; the lines of the others
/// are `templates_overflow`. Far more than most windows have, and at most some 25 KB a row.
pub const TEMPLATES_LISTED_MAX: usize = 256;

/// Lines of one template from one service, as listed.
#[derive(Serialize)]
struct Listed<'a> {
    template: String,
    service: &'a str,
    level: Level,
    count: u32,
}

pub(super) fn features_row(scored: &ScoredWindow) -> FeaturesRow {
    let content = &*scored.window.content;
    let mut pairs = content.sorted_pairs();
    // Stable: what is equally frequent stays in the order of service and template.
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
    let (listed, others) = pairs.split_at(pairs.len().min(TEMPLATES_LISTED_MAX));
    let listed: Vec<_> = listed.iter().map(|pair| list(content, pair)).collect();
    let others: u32 = others.iter().map(|pair| pair.count).sum();
    FeaturesRow {
        features: Json::of(&Features(&scored.features.values)),
        templates: Json::of(&listed),
        templates_overflow: i32::try_from(others.saturating_add(content.overflow))
            .unwrap_or(i32::MAX),
    }
}

fn list<'a>(content: &'a WindowContent, pair: &TemplateCount) -> Listed<'a> {
    Listed {
        template: template_id(&pair.template),
        service: content.service_of(pair),
        level: pair.level,
        count: pair.count,
    }
}

/// Returns a template's identity as tables have it.
pub(super) fn template_id(template: &Template) -> String {
    format!("{:016x}", template.hash)
}

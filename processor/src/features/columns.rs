//! The names and order of the columns.

/// Dimensions of a template's text vector: the columns `tfidf_0` to `tfidf_14`.
pub const TEXT_DIMENSIONS: usize = 15;

/// Column names, in order: 30 of counts, rates and text, then the novelty columns.
pub const COLUMNS: [&str; 42] = [
    "log_count",
    "error_count",
    "fatal_count",
    "warn_count",
    "info_count",
    "debug_count",
    "error_rate",
    "fatal_rate",
    "warn_rate",
    "warn_to_info_ratio",
    "critical_count",
    "critical_rate",
    "message_rarity",
    "message_anomaly_score",
    "message_cluster",
    "tfidf_0",
    "tfidf_1",
    "tfidf_2",
    "tfidf_3",
    "tfidf_4",
    "tfidf_5",
    "tfidf_6",
    "tfidf_7",
    "tfidf_8",
    "tfidf_9",
    "tfidf_10",
    "tfidf_11",
    "tfidf_12",
    "tfidf_13",
    "tfidf_14",
    "unseen_templates",
    "surprisal_max",
    "surprisal_mean",
    "mix_divergence",
    "distinct_templates",
    "distinct_services",
    "unseen_templates_5m",
    "surprisal_mean_5m",
    "critical_rate_5m",
    "unseen_templates_1h",
    "surprisal_mean_1h",
    "critical_rate_1h",
];

/// A column's place in [`COLUMNS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    /// Lines.
    LogCount = 0,
    /// `ERROR` lines.
    ErrorCount,
    /// `FATAL` lines.
    FatalCount,
    /// `WARN` lines.
    WarnCount,
    /// `INFO` lines.
    InfoCount,
    /// `DEBUG` lines.
    DebugCount,
    /// Share of `ERROR` lines.
    ErrorRate,
    /// Share of `FATAL` lines.
    FatalRate,
    /// Share of `WARN` lines.
    WarnRate,
    /// `WARN` lines per `INFO` line.
    WarnToInfoRatio,
    /// `ERROR` and `FATAL` lines.
    CriticalCount,
    /// Share of `ERROR` and `FATAL` lines.
    CriticalRate,
    /// Mean over lines of 1 / training count of the template; 1 for one never seen.
    MessageRarity,
    /// Mean over lines of the template's scaled distance to its nearest centroid, in [0, 1].
    MessageAnomalyScore,
    /// The most frequent nearest centroid; reported, never part of a distance.
    MessageCluster,
    /// First of the 15 text dimensions.
    Tfidf0,
    /// Distinct templates never seen in training.
    UnseenTemplates = 30,
    /// Largest surprisal of a line, -ln p(template | service), in nats.
    SurprisalMax,
    /// Mean surprisal over lines, in nats.
    SurprisalMean,
    /// Jensen-Shannon divergence of the mix of templates from training's, in [0, ln 2].
    MixDivergence,
    /// Distinct templates.
    DistinctTemplates,
    /// Distinct services.
    DistinctServices,
    /// Unseen templates per window over about the last 5 minutes.
    UnseenTemplates5m,
    /// Mean surprisal over about the last 5 minutes.
    SurprisalMean5m,
    /// Share of critical lines over about the last 5 minutes.
    CriticalRate5m,
    /// Unseen templates per window over about the last hour.
    UnseenTemplates1h,
    /// Mean surprisal over about the last hour.
    SurprisalMean1h,
    /// Share of critical lines over about the last hour.
    CriticalRate1h,
}

impl Column {
    /// Returns the column's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        COLUMNS[self as usize]
    }
}

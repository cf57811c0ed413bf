-- The feature store: what every window looked like, for retraining and for questions that the result
-- row does not answer. One row per result row, written in the same statement and under the same fence.
--
-- Why beside anomaly_results: results are read all day and kept narrow; features are wide and read in
-- bulk.
CREATE TABLE window_features (
    window_start    timestamptz      NOT NULL,
    window_end      timestamptz      NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    -- The model whose text columns these are: tfidf_* of two models do not compare.
    model_checksum  text             NOT NULL,
    -- Every column of the feature row, by name.
    features        jsonb            NOT NULL,
    -- Lines per template: [{"template": id, "service": name, "level": name, "count": n}, …], most
    -- frequent first. Texts are in log_templates.
    templates       jsonb            NOT NULL,
    -- Lines of templates beyond those listed.
    templates_overflow int           NOT NULL DEFAULT 0,

    PRIMARY KEY (window_start, window_end, stream)
);

-- The feature row moves here; rows written before keep theirs.
INSERT INTO window_features (window_start, window_end, stream, model_checksum, features, templates)
SELECT window_start, window_end, stream, model_checksum, features, '[]' FROM anomaly_results;

-- Replicas of the version before still write the column while an upgrade is rolled out. A default, since
-- older TimescaleDB lets no constraint be dropped once a table has compression.
ALTER TABLE anomaly_results ALTER COLUMN features SET DEFAULT '{}';
COMMENT ON COLUMN anomaly_results.features IS 'moved to window_features';

-- How often a final row was written for the window, 0 while it is provisional: what is counted but once
-- is counted with the first. Rows that are there already count as written, not as counted.
ALTER TABLE anomaly_results ADD COLUMN final_revision int NOT NULL DEFAULT 1;

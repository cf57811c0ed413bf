-- What the views of the next migration walk along, so that none of them reads a table from end to
-- end. Every index that results are written through is partial: it costs nothing for the rows that
-- the view does not ask for.

-- Labelled windows by hour. The expression is that of the view, so that a condition on its bucket is
-- a range of this index; date_bin, since date_trunc depends on the session and cannot be indexed. The
-- columns that are counted ride along, so that the table is not read at all: the planner wants
-- window_start for that, too, though the expression holds it.
CREATE INDEX anomaly_results_labelled_idx
    ON anomaly_results (date_bin('1 hour', window_start, 'epoch'))
    INCLUDE (window_start, is_anomaly, ground_truth)
    WHERE labelled_count > 0 AND NOT provisional;

-- "Has any stream had this template before?" and "what is new in this service?"
CREATE INDEX log_templates_id_idx ON log_templates (id, first_seen);
CREATE INDEX log_templates_service_idx ON log_templates (service, first_seen);

-- Deploys as marks on a timeline; those of one service use the primary key.
CREATE INDEX deploys_deployed_at_idx ON deploys (deployed_at);

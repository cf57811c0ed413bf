-- Applied by every `migrate` with retention on: results and their features are kept 30 days, raw lines 7.
SELECT add_retention_policy('anomaly_results', INTERVAL '30 days', if_not_exists => true);
SELECT add_retention_policy('window_features', INTERVAL '30 days', if_not_exists => true);
SELECT add_retention_policy('log_events', INTERVAL '7 days', if_not_exists => true);

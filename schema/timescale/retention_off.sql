-- Applied by every `migrate --retention off`: nothing is dropped, for databases that hold old data.
SELECT remove_retention_policy('anomaly_results', if_exists => true);
SELECT remove_retention_policy('window_features', if_exists => true);
SELECT remove_retention_policy('log_events', if_exists => true);

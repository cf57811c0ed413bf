-- Alarms that come before their window is full: an alarm says when, and goes on saying what it said then;
-- the row of its window says so as well.

-- Event time at which an early alarm was raised; null for others. Its counts, score, explanation and
-- next_offset are those of the lines until then: one past the record at which the pane boundary was passed.
ALTER TABLE alarms ADD COLUMN early_at timestamptz;

-- What an early alarm said of the window: at, next_offset, anomaly_score, severity, log_count, error_count,
-- critical_count. The row's own counts are those of the whole window; its score is the stronger of the two.
ALTER TABLE anomaly_results ADD COLUMN early jsonb;

-- One row per stream and window: what was counted, how it scored, and where the stream stands
-- afterwards.
--
-- Why this key: replicas, topics, partitions and window lengths must never collide, so the row is
-- known by its whole window and its stream, never by when or by whom it was written. It also holds
-- window_start, by which hypertables are cut.
CREATE TABLE anomaly_results (
    -- Equal to window_end: when the window could first be judged.
    "timestamp"     timestamptz      NOT NULL,
    window_start    timestamptz      NOT NULL,
    window_end      timestamptz      NOT NULL,
    is_anomaly      int              NOT NULL,
    anomaly_score   double precision NOT NULL,
    cluster_label   int              NOT NULL,
    log_count       int              NOT NULL,
    -- Lines of level ERROR, and lines of level ERROR or FATAL.
    error_count     int              NOT NULL,
    critical_count  int              NOT NULL,
    error_rate      double precision NOT NULL,
    critical_rate   double precision NOT NULL,
    -- 1 when a line was labelled anomalous. 0 says nothing unless labelled_count is above 0.
    ground_truth    int              NOT NULL DEFAULT 0,
    -- Lines that carried a label, so that unlabelled is not taken for normal.
    labelled_count  int              NOT NULL DEFAULT 0,

    -- topic/partition or topic/partition/service. Byte order, so that the streams of one partition
    -- are one range of the index, whatever the locale of the database.
    stream          text COLLATE "C" NOT NULL,
    topic           text             NOT NULL,
    partition       int              NOT NULL,
    -- Null where windows are grouped by partition.
    service         text,

    -- What made the window final: watermark, end, idle; open while it is not.
    final_by        text             NOT NULL,
    -- Written before the window was final; the final row replaces it, never the reverse.
    provisional     boolean          NOT NULL DEFAULT false,
    -- Reading began in its midst, so lines may be missing; never replaces a complete row.
    partial         boolean          NOT NULL DEFAULT false,
    -- Stands for a run of empty windows too long to list.
    gap             boolean          NOT NULL DEFAULT false,
    -- Scored so late (catching up) that nobody was told.
    stale           boolean          NOT NULL DEFAULT false,
    -- The stream was too young for its volume to be judged.
    cold            boolean          NOT NULL DEFAULT false,
    -- A lasting change of volume was taken for the new level at this window.
    level_shift     boolean          NOT NULL DEFAULT false,

    -- -log10 of the combined p-value: ranks anomalies beyond where anomaly_score saturates.
    severity        double precision NOT NULL,
    dbscan_score    double precision NOT NULL,
    model_checksum  text             NOT NULL,
    -- The lines stand at offsets [first_offset, next_offset); null for windows without lines.
    first_offset    bigint,
    next_offset     bigint,
    features        jsonb            NOT NULL,
    explanation     jsonb            NOT NULL,
    -- Rolling baseline and progress of the stream after this window; read back on assignment.
    state           jsonb            NOT NULL,
    written_at      timestamptz      NOT NULL DEFAULT now(),

    PRIMARY KEY (window_start, window_end, stream)
);

-- The newest row of each stream of a partition (on assignment), and the timeline of one stream.
CREATE INDEX anomaly_results_stream_idx ON anomaly_results (stream, window_start DESC);

-- "What was anomalous lately": few rows, asked for most often. Time ranges over all rows use the
-- primary key.
CREATE INDEX anomaly_results_anomaly_idx ON anomaly_results (window_start DESC)
    WHERE is_anomaly = 1;

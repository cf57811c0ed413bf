-- One row per alarm: what was said, why, on which records it rests, and what people made of it.
--
-- Alarms are few and kept as long as results are; they are no hypertable, so that an id is enough to
-- find one.
CREATE TABLE alarms (
    -- Hash of stream and window, 16 hex digits: the alarm line carries the same, whoever wrote it.
    alarm_id        text COLLATE "C" PRIMARY KEY,
    -- Order of arrival, for those who follow.
    seq             bigint GENERATED ALWAYS AS IDENTITY,
    raised_at       timestamptz      NOT NULL DEFAULT now(),
    window_start    timestamptz      NOT NULL,
    window_end      timestamptz      NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    topic           text             NOT NULL,
    partition       int              NOT NULL,
    service         text,
    -- What raised it: window (its score), early (before the window was final), silence.
    kind            text             NOT NULL DEFAULT 'window',
    -- The clock decided, and the final row may disagree.
    provisional     boolean          NOT NULL,
    -- So old when it was raised that nobody was told.
    stale           boolean          NOT NULL,
    anomaly_score   double precision NOT NULL,
    severity        double precision NOT NULL,
    -- Combined p-value below which windows were anomalous.
    threshold       double precision NOT NULL,
    log_count       int              NOT NULL,
    error_count     int              NOT NULL,
    critical_count  int              NOT NULL,
    reasons         text[]           NOT NULL,
    samples         text[]           NOT NULL,
    explanation     jsonb            NOT NULL,

    -- Provenance: reading [first_offset, next_offset) again, from this watermark and this state, under
    -- this model gives this score.
    first_offset    bigint,
    next_offset     bigint,
    -- Largest event time of the partition before first_offset; null at its beginning.
    max_event_time_before timestamptz,
    -- Window whose row holds the state that this one was scored with; null for a stream's first. A row
    -- of another model than this one counts for its progress only.
    state_window_start timestamptz,
    state_window_end   timestamptz,
    -- How far behind the largest event time records could be, in milliseconds.
    lateness_ms     bigint           NOT NULL,
    model_checksum  text             NOT NULL,

    -- What people said of it.
    acknowledged_at timestamptz,
    acknowledged_by text,
    feedback        text CHECK (feedback IN ('real', 'false-alarm')),
    feedback_note   text,
    feedback_at     timestamptz,
    feedback_by     text,

    UNIQUE (window_start, window_end, stream)
);

CREATE UNIQUE INDEX alarms_seq_idx ON alarms (seq);

-- Those who follow look back a little, for what was written earlier and committed later.
CREATE INDEX alarms_raised_idx ON alarms (raised_at);

-- Who looked at or judged an alarm, and when; never updated.
CREATE TABLE alarm_actions (
    alarm_id    text        NOT NULL,
    action      text        NOT NULL,
    actor       text        NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    note        text
);
CREATE INDEX alarm_actions_alarm_idx ON alarm_actions (alarm_id, at);

-- Patterns that raise no alarm in a stream for a while, because somebody called one of their alarms
-- false. They hold for windows that start in [active_from, expires_at), so that a window read again is
-- judged as it was.
CREATE TABLE mutes (
    mute_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream      text COLLATE "C" NOT NULL,
    -- What is muted: template (its being new, surprising or repeated), critical or volume.
    kind        text             NOT NULL CHECK (kind IN ('template', 'critical', 'volume')),
    template    text COLLATE "C",
    template_text text,
    -- The alarm that was called false.
    alarm_id    text COLLATE "C" NOT NULL,
    active_from timestamptz      NOT NULL,
    -- Brought forward when the mute is lifted; rows stay, for they tell how windows were judged.
    expires_at  timestamptz      NOT NULL,
    created_at  timestamptz      NOT NULL DEFAULT now(),
    created_by  text             NOT NULL,
    lifted_at   timestamptz,
    lifted_by   text,
    CHECK ((kind = 'template') = (template IS NOT NULL))
);
CREATE INDEX mutes_stream_idx ON mutes (stream, expires_at);

-- The window is no anomaly because part of it is muted.
ALTER TABLE anomaly_results ADD COLUMN muted boolean NOT NULL DEFAULT false;

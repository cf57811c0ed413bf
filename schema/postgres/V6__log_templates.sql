-- Every template ever seen in a stream: a line with its variables masked.
--
-- Why per stream: only the owner of a partition writes its rows, so replicas never wait for each
-- other's locks; sums over streams are a GROUP BY id away. Only final windows count, each once.
CREATE TABLE log_templates (
    stream      text COLLATE "C" NOT NULL,
    -- Hash of the masked text, 16 hex digits: the same everywhere and for ever.
    id          text COLLATE "C" NOT NULL,
    text        text             NOT NULL,
    -- Service of its first line, and the highest level in its first window.
    service     text             NOT NULL,
    level       text             NOT NULL,
    -- Starts of the first and the last window it was seen in.
    first_seen  timestamptz      NOT NULL,
    last_seen   timestamptz      NOT NULL,
    -- Lines.
    count       bigint           NOT NULL,
    PRIMARY KEY (stream, id)
)
-- Counts are updated in place with every window.
WITH (fillfactor = 70);

-- "What is new today".
CREATE INDEX log_templates_first_seen_idx ON log_templates (first_seen DESC);

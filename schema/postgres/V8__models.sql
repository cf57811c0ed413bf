-- Models that scored something here. They are kept as long as their rows, so that any score can be
-- proved again.
CREATE TABLE models (
    checksum        text COLLATE "C" PRIMARY KEY,
    registered_at   timestamptz NOT NULL DEFAULT now(),
    training_from   timestamptz NOT NULL,
    training_until  timestamptz NOT NULL,
    windows         bigint      NOT NULL,
    lines           bigint      NOT NULL,
    -- model.json, compressed with zstd: at most 20 MB before.
    bundle          bytea       NOT NULL
);

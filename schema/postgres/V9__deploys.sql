-- When which version of a service was rolled out: recorded by hand, or read from events that say so.
CREATE TABLE deploys (
    service     text        NOT NULL,
    version     text        NOT NULL,
    deployed_at timestamptz NOT NULL,
    -- command or event.
    source      text        NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    recorded_by text,
    PRIMARY KEY (service, deployed_at, version)
);

-- Applied by `migrate --roles`, as often as you like: two roles that nobody logs in as, for those who do:
--
--   CREATE ROLE grafana  LOGIN PASSWORD '…' IN ROLE logguard_reader;
--   CREATE ROLE replica  LOGIN PASSWORD '…' IN ROLE logguard_writer;
--
-- logguard_reader reads every table and view, for Grafana and psql. logguard_writer does what
-- `logguard run` does: it adds rows and brings them up to date; it drops, alters and empties nothing.
-- Whoever migrates and maintains owns the tables, and is neither.
DO $roles$
DECLARE
    relation regclass;
    rights   text;
    name     text;
BEGIN
    FOREACH name IN ARRAY ARRAY['logguard_reader', 'logguard_writer'] LOOP
        BEGIN
            IF to_regrole(name) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- Made for another database of this server, just now.
        END;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), name);
    END LOOP;

    FOR relation IN
        SELECT oid::regclass FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
          AND pg_has_role(relowner, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO logguard_reader', relation);
    END LOOP;

    -- SELECT comes with UPDATE: an upsert reads what it replaces.
    FOR name, rights IN VALUES
        ('owner',                   'SELECT, INSERT, UPDATE'),
        ('anomaly_results',         'SELECT, INSERT, UPDATE'),
        ('window_features',         'SELECT, INSERT, UPDATE'),
        ('log_templates',           'SELECT, INSERT, UPDATE'),
        ('alarms',                  'SELECT, INSERT, UPDATE'),
        ('alarm_actions',           'SELECT, INSERT'),
        ('mutes',                   'SELECT, INSERT, UPDATE'),
        ('template_decisions',      'SELECT, INSERT'),
        ('models',                  'SELECT, INSERT'),
        ('active_models',           'SELECT, INSERT'),
        ('learning_leases',         'SELECT, INSERT, UPDATE'),
        ('deploys',                 'SELECT, INSERT'),
        ('log_events',              'INSERT'),
        -- Drops its own notes of days past.
        ('pipeline_health',         'SELECT, INSERT, UPDATE, DELETE'),
        ('refinery_schema_history', 'SELECT')
    LOOP
        relation := to_regclass(name);
        IF relation IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %s TO logguard_writer', rights, relation);
        END IF;
    END LOOP;
END
$roles$;

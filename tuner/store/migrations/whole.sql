-- Optuna 5.0.0, revision 0021, PostgreSQL 18
CREATE SCHEMA tuner;
CREATE TYPE public.studydirection AS ENUM (
    'NOT_SET',
    'MINIMIZE',
    'MAXIMIZE'
);
CREATE TYPE public.trialintermediatevaluetype AS ENUM (
    'FINITE',
    'INF_POS',
    'INF_NEG',
    'NAN'
);
CREATE TYPE public.trialstate AS ENUM (
    'RUNNING',
    'COMPLETE',
    'PRUNED',
    'FAIL',
    'WAITING'
);
CREATE TYPE public.trialvaluetype AS ENUM (
    'FINITE',
    'INF_POS',
    'INF_NEG'
);
CREATE FUNCTION tuner.announce_inserted() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
            BEGIN
                PERFORM pg_notify('tuner', study_id::text)
                FROM (SELECT DISTINCT study_id FROM added) AS studies
                WHERE pg_try_advisory_xact_lock(29806, study_id);
                RETURN NULL;
            END $$;
CREATE FUNCTION tuner.announce_of_trials() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
            BEGIN
                PERFORM pg_notify('tuner', study_id::text)
                FROM (SELECT DISTINCT study_id FROM added JOIN tuner.trial USING (trial_id)) AS studies
                WHERE pg_try_advisory_xact_lock(29806, study_id);
                RETURN NULL;
            END $$;
CREATE FUNCTION tuner.announce_row() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        DECLARE
            study_id integer := (CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END).study_id;
        BEGIN
            IF TG_TABLE_NAME = 'study' OR pg_try_advisory_xact_lock(29806, study_id) THEN
                PERFORM pg_notify('tuner', study_id::text);
            END IF;
            RETURN NULL;
        END $$;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.studies (
    study_id integer NOT NULL,
    study_name character varying(512) NOT NULL
);
CREATE SEQUENCE public.studies_study_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.studies_study_id_seq OWNED BY public.studies.study_id;
CREATE TABLE public.study_directions (
    study_direction_id integer NOT NULL,
    direction public.studydirection NOT NULL,
    study_id integer NOT NULL,
    objective integer NOT NULL
);
CREATE SEQUENCE public.study_directions_study_direction_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.study_directions_study_direction_id_seq OWNED BY public.study_directions.study_direction_id;
CREATE TABLE public.study_system_attributes (
    study_system_attribute_id integer NOT NULL,
    study_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE public.study_system_attributes_study_system_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.study_system_attributes_study_system_attribute_id_seq OWNED BY public.study_system_attributes.study_system_attribute_id;
CREATE TABLE public.study_user_attributes (
    study_user_attribute_id integer NOT NULL,
    study_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE public.study_user_attributes_study_user_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.study_user_attributes_study_user_attribute_id_seq OWNED BY public.study_user_attributes.study_user_attribute_id;
CREATE TABLE public.trial_heartbeats (
    trial_heartbeat_id integer NOT NULL,
    trial_id integer NOT NULL,
    heartbeat timestamp without time zone NOT NULL
);
CREATE SEQUENCE public.trial_heartbeats_trial_heartbeat_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trial_heartbeats_trial_heartbeat_id_seq OWNED BY public.trial_heartbeats.trial_heartbeat_id;
CREATE TABLE public.trial_intermediate_values (
    trial_intermediate_value_id integer NOT NULL,
    trial_id integer NOT NULL,
    step integer NOT NULL,
    intermediate_value double precision,
    intermediate_value_type public.trialintermediatevaluetype NOT NULL
);
CREATE SEQUENCE public.trial_intermediate_values_trial_intermediate_value_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trial_intermediate_values_trial_intermediate_value_id_seq OWNED BY public.trial_intermediate_values.trial_intermediate_value_id;
CREATE TABLE public.trial_params (
    param_id integer NOT NULL,
    trial_id integer,
    param_name character varying(512),
    param_value double precision,
    distribution_json text
);
CREATE SEQUENCE public.trial_params_param_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trial_params_param_id_seq OWNED BY public.trial_params.param_id;
CREATE TABLE public.trial_system_attributes (
    trial_system_attribute_id integer NOT NULL,
    trial_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE public.trial_system_attributes_trial_system_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trial_system_attributes_trial_system_attribute_id_seq OWNED BY public.trial_system_attributes.trial_system_attribute_id;
CREATE TABLE public.trial_user_attributes (
    trial_user_attribute_id integer NOT NULL,
    trial_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE public.trial_user_attributes_trial_user_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trial_user_attributes_trial_user_attribute_id_seq OWNED BY public.trial_user_attributes.trial_user_attribute_id;
CREATE TABLE public.trial_values (
    trial_value_id integer NOT NULL,
    trial_id integer NOT NULL,
    objective integer NOT NULL,
    value double precision,
    value_type public.trialvaluetype NOT NULL
);
CREATE SEQUENCE public.trial_values_trial_value_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trial_values_trial_value_id_seq OWNED BY public.trial_values.trial_value_id;
CREATE TABLE public.trials (
    trial_id integer NOT NULL,
    number integer,
    study_id integer,
    state public.trialstate NOT NULL,
    datetime_start timestamp without time zone,
    datetime_complete timestamp without time zone
);
CREATE SEQUENCE public.trials_trial_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trials_trial_id_seq OWNED BY public.trials.trial_id;
CREATE TABLE public.version_info (
    version_info_id integer NOT NULL,
    schema_version integer,
    library_version character varying(256),
    CONSTRAINT version_info_version_info_id_check CHECK ((version_info_id = 1))
);
CREATE TABLE tuner.account (
    account_id bigint NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    password text,
    created timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE tuner.account ALTER COLUMN account_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME tuner.account_account_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE tuner."check" (
    check_id bigint NOT NULL,
    study_id integer NOT NULL,
    body jsonb NOT NULL,
    made timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE tuner."check" ALTER COLUMN check_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME tuner.check_check_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE tuner.dataset (
    fingerprint text NOT NULL,
    classes jsonb NOT NULL,
    sizes jsonb NOT NULL
);
CREATE TABLE tuner.decision (
    trial_id integer NOT NULL,
    epoch integer NOT NULL,
    prune boolean NOT NULL,
    pruner text NOT NULL,
    saw jsonb NOT NULL,
    made timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.epoch (
    trial_id integer NOT NULL,
    epoch integer NOT NULL,
    token integer NOT NULL,
    train_loss double precision NOT NULL,
    train_nll double precision NOT NULL,
    train_acc double precision NOT NULL,
    val_loss double precision NOT NULL,
    val_acc double precision NOT NULL,
    val_auc double precision NOT NULL,
    val_balanced_acc double precision NOT NULL,
    lr double precision NOT NULL,
    seconds double precision NOT NULL,
    reused boolean NOT NULL,
    recorded timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    val_sensitivity double precision DEFAULT 'NaN'::double precision NOT NULL,
    val_specificity double precision DEFAULT 'NaN'::double precision NOT NULL,
    val_seconds double precision DEFAULT 'NaN'::double precision NOT NULL,
    own jsonb DEFAULT '{}'::jsonb NOT NULL
);
CREATE TABLE tuner.event (
    event_id bigint NOT NULL,
    study_id integer NOT NULL,
    trial_id integer,
    worker_id bigint,
    kind text NOT NULL,
    text text DEFAULT ''::text NOT NULL,
    happened timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    who text DEFAULT ''::text NOT NULL
);
ALTER TABLE tuner.event ALTER COLUMN event_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME tuner.event_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE tuner.fleet (
    fleet_id bigint NOT NULL,
    study_id integer NOT NULL,
    engine text NOT NULL,
    crew jsonb NOT NULL,
    handle jsonb DEFAULT '{}'::jsonb NOT NULL,
    workers integer NOT NULL,
    asked text DEFAULT ''::text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    who text NOT NULL,
    started timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    running integer DEFAULT 0 NOT NULL,
    ended timestamp with time zone,
    reason text DEFAULT ''::text NOT NULL
);
ALTER TABLE tuner.fleet ALTER COLUMN fleet_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME tuner.fleet_fleet_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE tuner.hook (
    hook text NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.identity (
    study_id integer NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    number integer NOT NULL,
    fingerprint text NOT NULL,
    body jsonb NOT NULL,
    made timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.label (
    fingerprint text NOT NULL,
    split text NOT NULL,
    ids jsonb NOT NULL,
    labels bytea NOT NULL,
    patients jsonb
);
CREATE TABLE tuner.lease (
    trial_id integer NOT NULL,
    study_id integer NOT NULL,
    state text NOT NULL,
    worker_id bigint NOT NULL,
    token integer NOT NULL,
    strikes integer DEFAULT 0 NOT NULL,
    claimed timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    renewed timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    interruptions integer DEFAULT 0 NOT NULL,
    removed_epochs integer DEFAULT 0 NOT NULL,
    hosts jsonb DEFAULT '[]'::jsonb NOT NULL,
    stretches integer DEFAULT 1 NOT NULL,
    checkpoint text,
    granted integer
)
WITH (fillfactor='60');
CREATE TABLE tuner.link (
    key text NOT NULL,
    account_id bigint NOT NULL,
    expires timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.look (
    study_id integer NOT NULL,
    number integer NOT NULL,
    rounds integer NOT NULL,
    racing jsonb NOT NULL,
    field integer NOT NULL,
    looks integer NOT NULL,
    room integer NOT NULL,
    error double precision NOT NULL,
    dropped jsonb NOT NULL,
    ends text DEFAULT ''::text NOT NULL,
    seen jsonb NOT NULL,
    made timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.notice (
    event_id bigint NOT NULL,
    hook text NOT NULL,
    due timestamp with time zone NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    ended timestamp with time zone,
    result text DEFAULT ''::text NOT NULL
);
CREATE TABLE tuner.outcome (
    trial_id integer NOT NULL,
    state text NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    token integer NOT NULL,
    best_epoch integer,
    best_train_loss double precision,
    best_train_nll double precision,
    best_train_acc double precision,
    best_val_loss double precision,
    best_val_acc double precision,
    best_test_loss double precision,
    best_test_acc double precision,
    last_epoch integer,
    last_train_loss double precision,
    last_train_nll double precision,
    last_train_acc double precision,
    last_val_loss double precision,
    last_val_acc double precision,
    last_test_loss double precision,
    last_test_acc double precision,
    setup jsonb,
    ended timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    best_val_auc double precision,
    best_val_balanced_acc double precision,
    best_val_sensitivity double precision,
    best_val_specificity double precision,
    best_test_auc double precision,
    best_test_balanced_acc double precision,
    best_test_sensitivity double precision,
    best_test_specificity double precision,
    last_val_auc double precision,
    last_val_balanced_acc double precision,
    last_val_sensitivity double precision,
    last_val_specificity double precision,
    last_test_auc double precision,
    last_test_balanced_acc double precision,
    last_test_sensitivity double precision,
    last_test_specificity double precision,
    best_own jsonb,
    last_own jsonb,
    epochs_run integer,
    epochs_reused integer,
    seconds double precision,
    seconds_alone double precision
);
CREATE TABLE tuner.output (
    trial_id integer NOT NULL,
    token integer NOT NULL,
    worker_id bigint NOT NULL,
    text text NOT NULL,
    stored timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.piece (
    trial_id integer NOT NULL,
    token integer NOT NULL,
    split text NOT NULL,
    moment text NOT NULL,
    number integer NOT NULL,
    content bytea NOT NULL
);
ALTER TABLE ONLY tuner.piece ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE tuner.prediction (
    trial_id integer NOT NULL,
    split text NOT NULL,
    moment text NOT NULL,
    classes integer NOT NULL,
    log_probabilities bytea,
    token integer
);
CREATE TABLE tuner.queued (
    study_id integer NOT NULL,
    number integer NOT NULL,
    chosen jsonb NOT NULL,
    configuration integer,
    made timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.resampled (
    trial_id integer NOT NULL,
    split text NOT NULL,
    moment text NOT NULL,
    metric text NOT NULL,
    content bytea NOT NULL
);
CREATE TABLE tuner.rung (
    trial_id integer NOT NULL,
    epoch integer NOT NULL,
    value double precision NOT NULL
);
CREATE TABLE tuner.schema_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE tuner.session (
    key text NOT NULL,
    account_id bigint NOT NULL,
    began timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.stretch (
    stretch_id bigint NOT NULL,
    trial_id integer NOT NULL,
    start integer NOT NULL,
    until integer,
    why text NOT NULL,
    saw jsonb NOT NULL,
    made timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE tuner.stretch ALTER COLUMN stretch_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME tuner.stretch_stretch_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE tuner.study (
    study_id integer NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    spec json NOT NULL,
    fingerprint text NOT NULL,
    state text NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    provenance jsonb NOT NULL,
    created timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    opened timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    reopenings integer DEFAULT 0 NOT NULL,
    tags jsonb DEFAULT '[]'::jsonb NOT NULL,
    archived timestamp with time zone,
    note text DEFAULT ''::text NOT NULL,
    priority integer DEFAULT 0 NOT NULL
);
CREATE TABLE tuner.token (
    name text NOT NULL,
    key text NOT NULL,
    role text NOT NULL,
    created timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen timestamp with time zone,
    expires timestamp with time zone
);
CREATE TABLE tuner.trial (
    trial_id integer NOT NULL,
    study_id integer NOT NULL,
    number integer NOT NULL,
    configuration integer NOT NULL,
    seed integer NOT NULL,
    chosen jsonb NOT NULL,
    created timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.upload (
    trial_id integer NOT NULL,
    token integer NOT NULL,
    bytes bigint NOT NULL,
    begun timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE tuner.worker (
    worker_id bigint NOT NULL,
    study_id integer NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    device text NOT NULL,
    started timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended timestamp with time zone,
    active_seconds double precision DEFAULT '0'::double precision NOT NULL,
    load jsonb,
    device_seconds double precision,
    price_per_hour double precision,
    tally jsonb,
    trained bigint DEFAULT '0'::bigint NOT NULL
)
WITH (fillfactor='60');
ALTER TABLE tuner.worker ALTER COLUMN worker_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME tuner.worker_worker_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE ONLY public.studies ALTER COLUMN study_id SET DEFAULT nextval('public.studies_study_id_seq'::regclass);
ALTER TABLE ONLY public.study_directions ALTER COLUMN study_direction_id SET DEFAULT nextval('public.study_directions_study_direction_id_seq'::regclass);
ALTER TABLE ONLY public.study_system_attributes ALTER COLUMN study_system_attribute_id SET DEFAULT nextval('public.study_system_attributes_study_system_attribute_id_seq'::regclass);
ALTER TABLE ONLY public.study_user_attributes ALTER COLUMN study_user_attribute_id SET DEFAULT nextval('public.study_user_attributes_study_user_attribute_id_seq'::regclass);
ALTER TABLE ONLY public.trial_heartbeats ALTER COLUMN trial_heartbeat_id SET DEFAULT nextval('public.trial_heartbeats_trial_heartbeat_id_seq'::regclass);
ALTER TABLE ONLY public.trial_intermediate_values ALTER COLUMN trial_intermediate_value_id SET DEFAULT nextval('public.trial_intermediate_values_trial_intermediate_value_id_seq'::regclass);
ALTER TABLE ONLY public.trial_params ALTER COLUMN param_id SET DEFAULT nextval('public.trial_params_param_id_seq'::regclass);
ALTER TABLE ONLY public.trial_system_attributes ALTER COLUMN trial_system_attribute_id SET DEFAULT nextval('public.trial_system_attributes_trial_system_attribute_id_seq'::regclass);
ALTER TABLE ONLY public.trial_user_attributes ALTER COLUMN trial_user_attribute_id SET DEFAULT nextval('public.trial_user_attributes_trial_user_attribute_id_seq'::regclass);
ALTER TABLE ONLY public.trial_values ALTER COLUMN trial_value_id SET DEFAULT nextval('public.trial_values_trial_value_id_seq'::regclass);
ALTER TABLE ONLY public.trials ALTER COLUMN trial_id SET DEFAULT nextval('public.trials_trial_id_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('v3.2.0.a');
INSERT INTO public.version_info VALUES (1, 12, '5.0.0');
INSERT INTO tuner.schema_version VALUES ('0021');
SELECT pg_catalog.setval('public.studies_study_id_seq', 1, false);
SELECT pg_catalog.setval('public.study_directions_study_direction_id_seq', 1, false);
SELECT pg_catalog.setval('public.study_system_attributes_study_system_attribute_id_seq', 1, false);
SELECT pg_catalog.setval('public.study_user_attributes_study_user_attribute_id_seq', 1, false);
SELECT pg_catalog.setval('public.trial_heartbeats_trial_heartbeat_id_seq', 1, false);
SELECT pg_catalog.setval('public.trial_intermediate_values_trial_intermediate_value_id_seq', 1, false);
SELECT pg_catalog.setval('public.trial_params_param_id_seq', 1, false);
SELECT pg_catalog.setval('public.trial_system_attributes_trial_system_attribute_id_seq', 1, false);
SELECT pg_catalog.setval('public.trial_user_attributes_trial_user_attribute_id_seq', 1, false);
SELECT pg_catalog.setval('public.trial_values_trial_value_id_seq', 1, false);
SELECT pg_catalog.setval('public.trials_trial_id_seq', 1, false);
SELECT pg_catalog.setval('tuner.account_account_id_seq', 1, false);
SELECT pg_catalog.setval('tuner.check_check_id_seq', 1, false);
SELECT pg_catalog.setval('tuner.event_event_id_seq', 1, false);
SELECT pg_catalog.setval('tuner.fleet_fleet_id_seq', 1, false);
SELECT pg_catalog.setval('tuner.stretch_stretch_id_seq', 1, false);
SELECT pg_catalog.setval('tuner.worker_worker_id_seq', 1, false);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.studies
    ADD CONSTRAINT studies_pkey PRIMARY KEY (study_id);
ALTER TABLE ONLY public.study_directions
    ADD CONSTRAINT study_directions_pkey PRIMARY KEY (study_direction_id);
ALTER TABLE ONLY public.study_directions
    ADD CONSTRAINT study_directions_study_id_objective_key UNIQUE (study_id, objective);
ALTER TABLE ONLY public.study_system_attributes
    ADD CONSTRAINT study_system_attributes_pkey PRIMARY KEY (study_system_attribute_id);
ALTER TABLE ONLY public.study_system_attributes
    ADD CONSTRAINT study_system_attributes_study_id_key_key UNIQUE (study_id, key);
ALTER TABLE ONLY public.study_user_attributes
    ADD CONSTRAINT study_user_attributes_pkey PRIMARY KEY (study_user_attribute_id);
ALTER TABLE ONLY public.study_user_attributes
    ADD CONSTRAINT study_user_attributes_study_id_key_key UNIQUE (study_id, key);
ALTER TABLE ONLY public.trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_pkey PRIMARY KEY (trial_heartbeat_id);
ALTER TABLE ONLY public.trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_trial_id_key UNIQUE (trial_id);
ALTER TABLE ONLY public.trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_pkey PRIMARY KEY (trial_intermediate_value_id);
ALTER TABLE ONLY public.trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_trial_id_step_key UNIQUE (trial_id, step);
ALTER TABLE ONLY public.trial_params
    ADD CONSTRAINT trial_params_pkey PRIMARY KEY (param_id);
ALTER TABLE ONLY public.trial_params
    ADD CONSTRAINT trial_params_trial_id_param_name_key UNIQUE (trial_id, param_name);
ALTER TABLE ONLY public.trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_pkey PRIMARY KEY (trial_system_attribute_id);
ALTER TABLE ONLY public.trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_trial_id_key_key UNIQUE (trial_id, key);
ALTER TABLE ONLY public.trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_pkey PRIMARY KEY (trial_user_attribute_id);
ALTER TABLE ONLY public.trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_trial_id_key_key UNIQUE (trial_id, key);
ALTER TABLE ONLY public.trial_values
    ADD CONSTRAINT trial_values_pkey PRIMARY KEY (trial_value_id);
ALTER TABLE ONLY public.trial_values
    ADD CONSTRAINT trial_values_trial_id_objective_key UNIQUE (trial_id, objective);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT trials_pkey PRIMARY KEY (trial_id);
ALTER TABLE ONLY public.version_info
    ADD CONSTRAINT version_info_pkey PRIMARY KEY (version_info_id);
ALTER TABLE ONLY tuner.account
    ADD CONSTRAINT account_name_key UNIQUE (name);
ALTER TABLE ONLY tuner.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (account_id);
ALTER TABLE ONLY tuner."check"
    ADD CONSTRAINT check_pkey PRIMARY KEY (check_id);
ALTER TABLE ONLY tuner.dataset
    ADD CONSTRAINT dataset_pkey PRIMARY KEY (fingerprint);
ALTER TABLE ONLY tuner.decision
    ADD CONSTRAINT decision_pkey PRIMARY KEY (trial_id, epoch);
ALTER TABLE ONLY tuner.epoch
    ADD CONSTRAINT epoch_pkey PRIMARY KEY (trial_id, epoch);
ALTER TABLE ONLY tuner.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (event_id);
ALTER TABLE ONLY tuner.fleet
    ADD CONSTRAINT fleet_pkey PRIMARY KEY (fleet_id);
ALTER TABLE ONLY tuner.hook
    ADD CONSTRAINT hook_pkey PRIMARY KEY (hook);
ALTER TABLE ONLY tuner.identity
    ADD CONSTRAINT identity_pkey PRIMARY KEY (study_id, kind, key, number);
ALTER TABLE ONLY tuner.label
    ADD CONSTRAINT label_pkey PRIMARY KEY (fingerprint, split);
ALTER TABLE ONLY tuner.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (trial_id);
ALTER TABLE ONLY tuner.link
    ADD CONSTRAINT link_pkey PRIMARY KEY (key);
ALTER TABLE ONLY tuner.look
    ADD CONSTRAINT look_pkey PRIMARY KEY (study_id, number);
ALTER TABLE ONLY tuner.notice
    ADD CONSTRAINT notice_pkey PRIMARY KEY (event_id, hook);
ALTER TABLE ONLY tuner.outcome
    ADD CONSTRAINT outcome_pkey PRIMARY KEY (trial_id);
ALTER TABLE ONLY tuner.output
    ADD CONSTRAINT output_pkey PRIMARY KEY (trial_id, token);
ALTER TABLE ONLY tuner.piece
    ADD CONSTRAINT piece_pkey PRIMARY KEY (trial_id, token, split, moment, number);
ALTER TABLE ONLY tuner.prediction
    ADD CONSTRAINT prediction_pkey PRIMARY KEY (trial_id, split, moment);
ALTER TABLE ONLY tuner.queued
    ADD CONSTRAINT queued_pkey PRIMARY KEY (study_id, number);
ALTER TABLE ONLY tuner.queued
    ADD CONSTRAINT queued_study_id_configuration_key UNIQUE (study_id, configuration);
ALTER TABLE ONLY tuner.resampled
    ADD CONSTRAINT resampled_pkey PRIMARY KEY (trial_id, split, moment, metric);
ALTER TABLE ONLY tuner.rung
    ADD CONSTRAINT rung_pkey PRIMARY KEY (trial_id, epoch);
ALTER TABLE ONLY tuner.schema_version
    ADD CONSTRAINT schema_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY tuner.session
    ADD CONSTRAINT session_pkey PRIMARY KEY (key);
ALTER TABLE ONLY tuner.stretch
    ADD CONSTRAINT stretch_pkey PRIMARY KEY (stretch_id);
ALTER TABLE ONLY tuner.stretch
    ADD CONSTRAINT stretch_trial_id_start_key UNIQUE (trial_id, start);
ALTER TABLE ONLY tuner.study
    ADD CONSTRAINT study_name_version_key UNIQUE (name, version);
ALTER TABLE ONLY tuner.study
    ADD CONSTRAINT study_pkey PRIMARY KEY (study_id);
ALTER TABLE ONLY tuner.token
    ADD CONSTRAINT token_key_key UNIQUE (key);
ALTER TABLE ONLY tuner.token
    ADD CONSTRAINT token_pkey PRIMARY KEY (name);
ALTER TABLE ONLY tuner.trial
    ADD CONSTRAINT trial_pkey PRIMARY KEY (trial_id);
ALTER TABLE ONLY tuner.trial
    ADD CONSTRAINT trial_study_id_configuration_seed_key UNIQUE (study_id, configuration, seed);
ALTER TABLE ONLY tuner.trial
    ADD CONSTRAINT trial_study_id_number_key UNIQUE (study_id, number);
ALTER TABLE ONLY tuner.upload
    ADD CONSTRAINT upload_pkey PRIMARY KEY (trial_id, token);
ALTER TABLE ONLY tuner.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (worker_id);
CREATE UNIQUE INDEX ix_studies_study_name ON public.studies USING btree (study_name);
CREATE INDEX ix_trials_study_id ON public.trials USING btree (study_id);
CREATE INDEX check_by_study ON tuner."check" USING btree (study_id, check_id);
CREATE INDEX event_by_study ON tuner.event USING btree (study_id, event_id);
CREATE INDEX event_by_trial ON tuner.event USING btree (trial_id);
CREATE INDEX event_rare ON tuner.event USING btree (kind, study_id) WHERE ((kind = ANY (ARRAY['lost'::text, 'interrupted'::text, 'attempt failed'::text, 'failed'::text])) OR ((trial_id IS NULL) AND (kind = ANY (ARRAY['complete'::text, 'spent'::text, 'stopped'::text, 'paused'::text]))));
CREATE INDEX fleet_by_study ON tuner.fleet USING btree (study_id);
CREATE INDEX lease_open ON tuner.lease USING btree (study_id, worker_id) WHERE (state <> 'ended'::text);
CREATE INDEX trial_by_seed ON tuner.trial USING btree (study_id, seed, configuration);
CREATE INDEX worker_by_study ON tuner.worker USING btree (study_id);
CREATE TRIGGER announce AFTER INSERT OR DELETE ON tuner.study FOR EACH ROW EXECUTE FUNCTION tuner.announce_row();
CREATE TRIGGER announce_change AFTER UPDATE ON tuner.lease FOR EACH ROW WHEN (((old.state IS DISTINCT FROM new.state) OR (old.token IS DISTINCT FROM new.token))) EXECUTE FUNCTION tuner.announce_row();
CREATE TRIGGER announce_change AFTER UPDATE ON tuner.queued FOR EACH ROW WHEN (true) EXECUTE FUNCTION tuner.announce_row();
CREATE TRIGGER announce_change AFTER UPDATE ON tuner.study FOR EACH ROW WHEN (true) EXECUTE FUNCTION tuner.announce_row();
CREATE TRIGGER announce_change AFTER UPDATE ON tuner.worker FOR EACH ROW WHEN ((old.ended IS DISTINCT FROM new.ended)) EXECUTE FUNCTION tuner.announce_row();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner."check" REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_inserted();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.epoch REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_of_trials();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.event REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_inserted();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.lease REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_inserted();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.look REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_inserted();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.outcome REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_of_trials();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.output REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_of_trials();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.queued REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_inserted();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.trial REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_inserted();
CREATE TRIGGER announce_insert AFTER INSERT ON tuner.worker REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_inserted();
CREATE TRIGGER announce_update AFTER UPDATE ON tuner.output REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tuner.announce_of_trials();
ALTER TABLE ONLY public.study_directions
    ADD CONSTRAINT study_directions_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);
ALTER TABLE ONLY public.study_system_attributes
    ADD CONSTRAINT study_system_attributes_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);
ALTER TABLE ONLY public.study_user_attributes
    ADD CONSTRAINT study_user_attributes_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);
ALTER TABLE ONLY public.trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);
ALTER TABLE ONLY public.trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);
ALTER TABLE ONLY public.trial_params
    ADD CONSTRAINT trial_params_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);
ALTER TABLE ONLY public.trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);
ALTER TABLE ONLY public.trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);
ALTER TABLE ONLY public.trial_values
    ADD CONSTRAINT trial_values_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT trials_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);
ALTER TABLE ONLY tuner."check"
    ADD CONSTRAINT check_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.decision
    ADD CONSTRAINT decision_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.epoch
    ADD CONSTRAINT epoch_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.event
    ADD CONSTRAINT event_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.fleet
    ADD CONSTRAINT fleet_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.identity
    ADD CONSTRAINT identity_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.label
    ADD CONSTRAINT label_fingerprint_fkey FOREIGN KEY (fingerprint) REFERENCES tuner.dataset(fingerprint) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.lease
    ADD CONSTRAINT lease_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.link
    ADD CONSTRAINT link_account_id_fkey FOREIGN KEY (account_id) REFERENCES tuner.account(account_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.look
    ADD CONSTRAINT look_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.notice
    ADD CONSTRAINT notice_event_id_fkey FOREIGN KEY (event_id) REFERENCES tuner.event(event_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.outcome
    ADD CONSTRAINT outcome_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.output
    ADD CONSTRAINT output_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.piece
    ADD CONSTRAINT piece_trial_id_token_fkey FOREIGN KEY (trial_id, token) REFERENCES tuner.upload(trial_id, token) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.prediction
    ADD CONSTRAINT prediction_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.queued
    ADD CONSTRAINT queued_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.resampled
    ADD CONSTRAINT resampled_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.rung
    ADD CONSTRAINT rung_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.session
    ADD CONSTRAINT session_account_id_fkey FOREIGN KEY (account_id) REFERENCES tuner.account(account_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.stretch
    ADD CONSTRAINT stretch_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.trial
    ADD CONSTRAINT trial_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.upload
    ADD CONSTRAINT upload_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES tuner.trial(trial_id) ON DELETE CASCADE;
ALTER TABLE ONLY tuner.worker
    ADD CONSTRAINT worker_study_id_fkey FOREIGN KEY (study_id) REFERENCES tuner.study(study_id) ON DELETE CASCADE;

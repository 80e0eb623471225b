/*
 * pg_clockwork: today's objects, in reading order.
 *
 * Tables first: pg_cron's columns with its names, types, order and defaults,
 * then ours.  Then who may see what, then the functions.  Every name is
 * qualified, operators included: nothing here is looked up in a schema that
 * somebody else may have filled.
 */
\echo Use "CREATE EXTENSION pg_clockwork" to load this file. \quit

DO $$
DECLARE
  home pg_catalog.text := pg_catalog.current_setting('cron.database_name', true);
BEGIN
  IF home IS NULL THEN
    RAISE EXCEPTION 'pg_clockwork can only be loaded via shared_preload_libraries'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Add pg_clockwork to the shared_preload_libraries configuration variable in postgresql.conf.';
  END IF;
  IF pg_catalog.current_database() OPERATOR(pg_catalog.<>) home
     AND pg_catalog.current_database() OPERATOR(pg_catalog.<>) 'contrib_regression'
  THEN
    RAISE EXCEPTION 'can only create extension in database %', home
      USING DETAIL = 'Jobs must be scheduled from the database configured in '
                     'cron.database_name, since the pg_clockwork background worker '
                     'reads job descriptions from this database.',
            HINT = pg_catalog.format('Add cron.database_name = ''%s'' in postgresql.conf '
                                     'to use the current database.',
                                     pg_catalog.current_database());
  END IF;
END
$$;

CREATE SCHEMA cron;
COMMENT ON SCHEMA cron IS 'Job scheduler: jobs, their runs, and the functions that manage them.';

/* ---- whose is it? ---- */

/*
 * Declared immutable because a generated column wants it: the value is made
 * once, when the name is set, and is not to follow what the name means later.
 */
CREATE FUNCTION cron.role_oid(username text) RETURNS oid
  LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'clockwork_role_oid';
COMMENT ON FUNCTION cron.role_oid(text)
  IS 'The OID of the role of that name, NULL if there is none. Generates cron.job_run_details.owner; it is immutable for that purpose only.';

CREATE FUNCTION cron.is_owner(owner oid) RETURNS boolean
  LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'clockwork_is_owner';
COMMENT ON FUNCTION cron.is_owner(oid)
  IS 'Whether the current user is that role, inherits its privileges, or is a superuser.';

-- Not dumped: a restored copy gets an identity of its own, pg_upgrade keeps it.
CREATE TABLE cron.installation_identity (
  single boolean PRIMARY KEY DEFAULT true CONSTRAINT installation_identity_single_check CHECK (single),
  id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
COMMENT ON TABLE cron.installation_identity IS 'What tells this installation from its copies: one row, made by CREATE EXTENSION.';
COMMENT ON COLUMN cron.installation_identity.single IS 'True: there is one row.';
COMMENT ON COLUMN cron.installation_identity.id IS 'A random number. pg_dump leaves it behind, pg_upgrade takes it along.';
INSERT INTO cron.installation_identity DEFAULT VALUES;
GRANT SELECT ON cron.installation_identity TO PUBLIC;

CREATE FUNCTION cron.installation() RETURNS uuid
  LANGUAGE SQL STABLE PARALLEL SAFE
  RETURN (SELECT pg_catalog.md5(identity.id::pg_catalog.text OPERATOR(pg_catalog.||) database.oid::pg_catalog.text)::pg_catalog.uuid
            FROM cron.installation_identity AS identity, pg_catalog.pg_database AS database
           WHERE database.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
COMMENT ON FUNCTION cron.installation()
  IS 'The identity of this installation: of the extension in this very database, not of a restored or copied one.';

/* ---- jobs ---- */

CREATE SEQUENCE cron.jobid_seq;
COMMENT ON SEQUENCE cron.jobid_seq IS 'Numbers jobs.';

CREATE TABLE cron.job (
  jobid bigint PRIMARY KEY DEFAULT pg_catalog.nextval('cron.jobid_seq'),
  schedule text NOT NULL,
  command text NOT NULL,
  nodename text NOT NULL DEFAULT 'localhost',
  nodeport int NOT NULL DEFAULT COALESCE(pg_catalog.inet_server_port(),
                                         pg_catalog.current_setting('port')::pg_catalog.int4),
  database text NOT NULL DEFAULT pg_catalog.current_database(),
  username text NOT NULL DEFAULT CURRENT_USER,
  active boolean NOT NULL DEFAULT 'true',
  jobname text,

  timezone text,
  on_overlap text NOT NULL DEFAULT 'queue'
    CONSTRAINT job_on_overlap_check
    CHECK (on_overlap OPERATOR(pg_catalog.=) ANY ('{queue,skip,replace,parallel}'::pg_catalog.text[])),
  max_parallel int
    CONSTRAINT job_max_parallel_check CHECK (max_parallel OPERATOR(pg_catalog.>=) 1),
  on_missed text NOT NULL DEFAULT 'skip'
    CONSTRAINT job_on_missed_check
    CHECK (on_missed OPERATOR(pg_catalog.=) ANY ('{skip,run_once,run_all}'::pg_catalog.text[])),
  start_deadline interval
    CONSTRAINT job_start_deadline_check CHECK (start_deadline OPERATOR(pg_catalog.>) INTERVAL '0'),
  timeout interval
    CONSTRAINT job_timeout_check CHECK (timeout OPERATOR(pg_catalog.>) INTERVAL '0'),
  max_attempts int NOT NULL DEFAULT 1
    CONSTRAINT job_max_attempts_check
    CHECK (max_attempts OPERATOR(pg_catalog.>=) 1 AND max_attempts OPERATOR(pg_catalog.<=) 1000),
  retry_delay interval NOT NULL DEFAULT '1 minute'
    CONSTRAINT job_retry_delay_check CHECK (retry_delay OPERATOR(pg_catalog.>=) INTERVAL '0'),
  retry_on text[],
  jitter interval NOT NULL DEFAULT '0'
    CONSTRAINT job_jitter_check
    CHECK (jitter OPERATOR(pg_catalog.>=) INTERVAL '0' AND jitter OPERATOR(pg_catalog.<=) INTERVAL '1 day'),
  priority int NOT NULL DEFAULT 0
    CONSTRAINT job_priority_check
    CHECK (priority OPERATOR(pg_catalog.>=) -1000 AND priority OPERATOR(pg_catalog.<=) 1000),
  starts_at timestamptz,
  ends_at timestamptz,
  pause_after int
    CONSTRAINT job_pause_after_check
    CHECK (pause_after OPERATOR(pg_catalog.>=) 1 AND pause_after OPERATOR(pg_catalog.<=) 1000),
  paused_reason text,
  settings jsonb
    CONSTRAINT job_settings_check CHECK (pg_catalog.jsonb_typeof(settings) OPERATOR(pg_catalog.=) 'object'),
  fresh_session boolean NOT NULL DEFAULT 'false',
  history text NOT NULL DEFAULT 'all'
    CONSTRAINT job_history_check
    CHECK (history OPERATOR(pg_catalog.=) ANY ('{all,failures,none}'::pg_catalog.text[])),
  notify text
    CONSTRAINT job_notify_check
    CHECK (pg_catalog.octet_length(notify) OPERATOR(pg_catalog.>=) 1
           AND pg_catalog.octet_length(notify) OPERATOR(pg_catalog.<) 64),
  managed_by text,
  schedule_anchor timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  active_since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  owner oid,
  installation uuid NOT NULL DEFAULT cron.installation(),

  CONSTRAINT jobname_username_uniq UNIQUE (jobname, username)
);
COMMENT ON TABLE cron.job IS 'Jobs: what to run, when, where and as whom.';
COMMENT ON COLUMN cron.job.jobid IS 'Number of the job.';
COMMENT ON COLUMN cron.job.schedule IS 'When to run, as written by the user.';
COMMENT ON COLUMN cron.job.command IS 'SQL to run, one or more statements.';
COMMENT ON COLUMN cron.job.nodename IS 'Kept for pg_cron''s sake; has no effect: jobs run in this server.';
COMMENT ON COLUMN cron.job.nodeport IS 'Kept for pg_cron''s sake; has no effect: jobs run in this server.';
COMMENT ON COLUMN cron.job.database IS 'Database in which the command runs.';
COMMENT ON COLUMN cron.job.username IS 'Role as which the command runs, and which owns the job.';
COMMENT ON COLUMN cron.job.active IS 'Whether the job runs when it is due.';
COMMENT ON COLUMN cron.job.jobname IS 'Name of the job, unique per role; NULL if it has none.';
COMMENT ON COLUMN cron.job.timezone IS 'Time zone of the schedule; NULL means cron.timezone.';
COMMENT ON COLUMN cron.job.on_overlap IS 'What happens when the job is due before its last run has ended: queue, skip, replace or parallel.';
COMMENT ON COLUMN cron.job.max_parallel IS 'With on_overlap = parallel: how many runs at once; NULL means cron.max_running_jobs.';
COMMENT ON COLUMN cron.job.on_missed IS 'What happens to due times missed while the server or the launcher was down or the clock jumped: skip, run_once or run_all.';
COMMENT ON COLUMN cron.job.start_deadline IS 'How late a run may start; NULL means as late as it takes.';
COMMENT ON COLUMN cron.job.timeout IS 'How long one attempt may take; NULL means as long as it takes.';
COMMENT ON COLUMN cron.job.max_attempts IS 'How often a failing run is tried, 1 to 1000.';
COMMENT ON COLUMN cron.job.retry_delay IS 'Pause before the second attempt; it doubles with each further one, up to cron.max_retry_delay.';
COMMENT ON COLUMN cron.job.retry_on IS 'SQLSTATEs or classes worth another attempt; NULL means any error.';
COMMENT ON COLUMN cron.job.jitter IS 'How far starts are spread after their due time, up to a day: the same due time always gives the same start.';
COMMENT ON COLUMN cron.job.priority IS 'Who starts first when slots are short, -1000 to 1000: a point is worth a minute of waiting.';
COMMENT ON COLUMN cron.job.starts_at IS 'No due time before this.';
COMMENT ON COLUMN cron.job.ends_at IS 'No due time after this.';
COMMENT ON COLUMN cron.job.pause_after IS 'Consecutive failures after which the job pauses itself, 1 to 1000; NULL means never.';
COMMENT ON COLUMN cron.job.paused_reason IS 'Why the job is paused; NULL if it is not.';
COMMENT ON COLUMN cron.job.settings IS 'Configuration parameters for its runs, by name: set before the command begins, with the owner''s rights.';
COMMENT ON COLUMN cron.job.fresh_session IS 'Whether each of its runs gets a process of its own; otherwise it may follow another run of its role and database in one.';
COMMENT ON COLUMN cron.job.history IS 'Which records stay: all; failures (of runs that succeeded only the last one, and those asked for); none (only the last one, and those asked for).';
COMMENT ON COLUMN cron.job.notify IS 'Channel on which the end of each run is notified; NULL means none.';
COMMENT ON COLUMN cron.job.managed_by IS 'Who looks after this job, such as a deployment tool.';
COMMENT ON COLUMN cron.job.schedule_anchor IS 'Where the series of an interval schedule begins: when the schedule was set. Kept by a trigger.';
COMMENT ON COLUMN cron.job.active_since IS 'When the job was made active or resumed, was taken over or got its schedule: due times before that were not missed. Kept by a trigger.';
COMMENT ON COLUMN cron.job.owner IS 'The role that username named when it was last set: the job runs as this role, whatever it is called now. Kept by a trigger.';
COMMENT ON COLUMN cron.job.installation IS 'The installation that the job belongs to. In any other it is held: see cron.adopt().';

/* ---- runs ---- */

CREATE SEQUENCE cron.runid_seq;
COMMENT ON SEQUENCE cron.runid_seq IS 'Numbers runs.';

-- Room on each page lets the updates of a run's life stay on it (HOT).  The order
-- of columns keeps their log short: what an end changes stands together, so that
-- what is the same before and behind it is not logged again, and numbers stand
-- together, for want of padding.
CREATE TABLE cron.job_run_details (
  jobid bigint,
  runid bigint PRIMARY KEY DEFAULT pg_catalog.nextval('cron.runid_seq'),
  job_pid int,
  database text,
  username text,
  command text,
  status text,
  return_message text,
  start_time timestamptz,
  end_time timestamptz,

  reason text,
  sqlstate text,
  detail text,
  hint text,
  context text,
  command_tag text,
  row_count bigint,
  effects text,

  due_time timestamptz,
  attempt int,
  timeline int,
  owner oid GENERATED ALWAYS AS (cron.role_oid(username)) STORED,
  trigger text,
  label text,
  requested_by text
) WITH (fillfactor = 70);

-- A run can be started once for one due time, whatever happens.
CREATE UNIQUE INDEX job_run_details_due_time_key
  ON cron.job_run_details (jobid, due_time, attempt);

COMMENT ON INDEX cron.job_run_details_due_time_key IS 'One record for each attempt at a due time of a job.';

COMMENT ON TABLE cron.job_run_details IS 'Run records: every due time of every job, and what became of it.';
COMMENT ON COLUMN cron.job_run_details.jobid IS 'The job; NULL for a run without one.';
COMMENT ON COLUMN cron.job_run_details.runid IS 'Number of the run.';
COMMENT ON COLUMN cron.job_run_details.job_pid IS 'Process that ran the command; while the run is starting, the one that is to, where it waits for it already.';
COMMENT ON COLUMN cron.job_run_details.database IS 'Database in which the command ran.';
COMMENT ON COLUMN cron.job_run_details.username IS 'Role as which the command ran.';
COMMENT ON COLUMN cron.job_run_details.command IS 'The command as it was when the run began.';
COMMENT ON COLUMN cron.job_run_details.status IS 'queued, starting, running, succeeded, failed or skipped.';
COMMENT ON COLUMN cron.job_run_details.return_message IS 'Command tag of the last statement, or the error.';
COMMENT ON COLUMN cron.job_run_details.start_time IS 'When the command began.';
COMMENT ON COLUMN cron.job_run_details.end_time IS 'When the run ended.';
COMMENT ON COLUMN cron.job_run_details.reason IS 'Why it failed or was skipped, in one word.';
COMMENT ON COLUMN cron.job_run_details.sqlstate IS 'SQLSTATE of the error.';
COMMENT ON COLUMN cron.job_run_details.detail IS 'DETAIL of the error.';
COMMENT ON COLUMN cron.job_run_details.hint IS 'HINT of the error.';
COMMENT ON COLUMN cron.job_run_details.context IS 'CONTEXT of the error.';
COMMENT ON COLUMN cron.job_run_details.command_tag IS 'Command tag of the last statement, without counts.';
COMMENT ON COLUMN cron.job_run_details.row_count IS 'Rows processed by the last statement, where it counts them.';
COMMENT ON COLUMN cron.job_run_details.effects IS 'For a run whose end was not seen: none (nothing of it was committed) or unknown (part or all of it may have been). Otherwise NULL: status tells.';
COMMENT ON COLUMN cron.job_run_details.due_time IS 'The instant at which the run should have started.';
COMMENT ON COLUMN cron.job_run_details.trigger IS 'What made the run: schedule, retry, catch_up, manual, after, launch or enqueue.';
COMMENT ON COLUMN cron.job_run_details.attempt IS 'Which attempt at this due time, from 1.';
COMMENT ON COLUMN cron.job_run_details.label IS 'Label given to the run.';
COMMENT ON COLUMN cron.job_run_details.timeline IS 'WAL timeline on which the record was begun: each promotion of a standby starts a new one.';
COMMENT ON COLUMN cron.job_run_details.owner IS 'The role that username named when the record was written: whoever it is sees the record.';
COMMENT ON COLUMN cron.job_run_details.requested_by IS 'Role that asked for the run; NULL if the schedule did.';

/* ---- everything paused ---- */

-- No row: never paused.  A row without a reason says when the last pause ended.
CREATE TABLE cron.pause_state (
  singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT pause_state_singleton_check CHECK (singleton),
  reason text,
  changed_by text NOT NULL DEFAULT CURRENT_USER,
  changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE cron.pause_state IS 'Whether all jobs are paused: at most one row. Written by cron.pause_all, cron.drain and cron.resume_all.';
COMMENT ON COLUMN cron.pause_state.singleton IS 'Always true: there is only one row.';
COMMENT ON COLUMN cron.pause_state.reason IS 'Why all jobs are paused; NULL if they are not.';
COMMENT ON COLUMN cron.pause_state.changed_by IS 'Role that paused or resumed them.';
COMMENT ON COLUMN cron.pause_state.changed_at IS 'When they were paused or resumed.';

-- The same columns in the same order: records move from here to there as they are.
CREATE TABLE cron.record_backlog (
  LIKE cron.job_run_details INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING INDEXES INCLUDING COMMENTS
);
COMMENT ON TABLE cron.record_backlog IS 'Run records that cron.job_run_details would not take (a lock, a trigger); they move there by themselves as soon as it does.';

/* ---- who may see what ---- */

GRANT SELECT ON cron.job TO PUBLIC;
GRANT SELECT, DELETE ON cron.job_run_details TO PUBLIC;
GRANT SELECT ON cron.record_backlog TO PUBLIC;
GRANT SELECT ON cron.pause_state TO PUBLIC;
GRANT SELECT ON SEQUENCE cron.jobid_seq TO PUBLIC;
GRANT SELECT ON SEQUENCE cron.runid_seq TO PUBLIC;

ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY;
CREATE POLICY cron_job_policy ON cron.job
  USING (cron.is_owner(owner));
COMMENT ON POLICY cron_job_policy ON cron.job IS 'Users see and change their own jobs and those of roles whose privileges they have.';
CREATE POLICY cron_job_monitor_policy ON cron.job FOR SELECT
  USING ((SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')));
COMMENT ON POLICY cron_job_monitor_policy ON cron.job IS 'Who may read all statistics (pg_monitor) sees all jobs.';

ALTER TABLE cron.job_run_details ENABLE ROW LEVEL SECURITY;
CREATE POLICY cron_job_run_details_policy ON cron.job_run_details
  USING (cron.is_owner(owner));
COMMENT ON POLICY cron_job_run_details_policy ON cron.job_run_details IS 'Users see and delete the records of their own runs and of those of roles whose privileges they have.';
CREATE POLICY cron_job_run_details_monitor_policy ON cron.job_run_details FOR SELECT
  USING ((SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')));
COMMENT ON POLICY cron_job_run_details_monitor_policy ON cron.job_run_details IS 'Who may read all statistics (pg_monitor) sees all runs.';

CREATE VIEW cron.held_jobs WITH (security_invoker = true) AS
  SELECT job.jobid, job.jobname, job.database, job.username,
         CASE WHEN COALESCE(job.installation OPERATOR(pg_catalog.<>) (SELECT cron.installation()), true)
              THEN 'the job belongs to another installation: it came with a restored or copied database'
              WHEN cron.role_oid(job.username) IS NULL THEN 'the role of the job does not exist'
              ELSE 'the role of the job is not the one of that name: it was created later, or dropped and created again'
         END AS reason
    FROM cron.job AS job
   WHERE COALESCE(job.installation OPERATOR(pg_catalog.<>) (SELECT cron.installation()), true)
      OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS role WHERE role.oid OPERATOR(pg_catalog.=) job.owner);
COMMENT ON VIEW cron.held_jobs IS 'Jobs that do not run because they are not of this installation, or have lost their role. SELECT cron.adopt() takes them over.';
COMMENT ON COLUMN cron.held_jobs.jobid IS 'Number of the job.';
COMMENT ON COLUMN cron.held_jobs.jobname IS 'Name of the job; NULL if it has none.';
COMMENT ON COLUMN cron.held_jobs.database IS 'Database in which it would run.';
COMMENT ON COLUMN cron.held_jobs.username IS 'Role as which it would run.';
COMMENT ON COLUMN cron.held_jobs.reason IS 'Why it does not run.';
GRANT SELECT ON cron.held_jobs TO PUBLIC;

ALTER TABLE cron.record_backlog ENABLE ROW LEVEL SECURITY;
CREATE POLICY cron_record_backlog_policy ON cron.record_backlog
  USING (cron.is_owner(owner));
COMMENT ON POLICY cron_record_backlog_policy ON cron.record_backlog IS 'Users see the records of their own runs and of those of roles whose privileges they have.';
CREATE POLICY cron_record_backlog_monitor_policy ON cron.record_backlog FOR SELECT
  USING ((SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')));
COMMENT ON POLICY cron_record_backlog_monitor_policy ON cron.record_backlog IS 'Who may read all statistics (pg_monitor) sees all runs.';

SELECT pg_catalog.pg_extension_config_dump('cron.job', '');
SELECT pg_catalog.pg_extension_config_dump('cron.jobid_seq', '');
SELECT pg_catalog.pg_extension_config_dump('cron.job_run_details', '');
SELECT pg_catalog.pg_extension_config_dump('cron.record_backlog', '');
SELECT pg_catalog.pg_extension_config_dump('cron.runid_seq', '');
SELECT pg_catalog.pg_extension_config_dump('cron.pause_state', '');

/* ---- telling the launcher ---- */

CREATE FUNCTION cron.job_cache_invalidate() RETURNS trigger
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_job_cache_invalidate';
COMMENT ON FUNCTION cron.job_cache_invalidate() IS 'invalidate job cache';

CREATE FUNCTION cron.job_changed() RETURNS trigger
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_job_changed';
COMMENT ON FUNCTION cron.job_changed() IS 'Tell the launcher, at commit, which jobs changed.';
REVOKE ALL ON FUNCTION cron.job_changed() FROM PUBLIC;

CREATE FUNCTION cron.job_before_update() RETURNS trigger
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_job_before_update';
COMMENT ON FUNCTION cron.job_before_update() IS 'Keep cron.job.schedule_anchor and cron.job.active_since.';
REVOKE ALL ON FUNCTION cron.job_before_update() FROM PUBLIC;

CREATE FUNCTION cron.job_owner() RETURNS trigger
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_job_owner';
COMMENT ON FUNCTION cron.job_owner() IS 'Keep cron.job.owner: the role that username names whenever username is set.';
REVOKE ALL ON FUNCTION cron.job_owner() FROM PUBLIC;
CREATE FUNCTION cron.job_check() RETURNS trigger
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_job_check';
COMMENT ON FUNCTION cron.job_check() IS 'Refuse options of a job that cannot work together.';
REVOKE ALL ON FUNCTION cron.job_check() FROM PUBLIC;

CREATE TRIGGER cron_job_before_update
  BEFORE UPDATE ON cron.job
  FOR EACH ROW EXECUTE FUNCTION cron.job_before_update();
COMMENT ON TRIGGER cron_job_before_update ON cron.job IS 'Keep schedule_anchor and active_since when the schedule changes, and when the job is made active or resumed.';
CREATE TRIGGER cron_job_owner
  BEFORE INSERT OR UPDATE ON cron.job
  FOR EACH ROW EXECUTE FUNCTION cron.job_owner();
COMMENT ON TRIGGER cron_job_owner ON cron.job IS 'Pin the job to the role that username names.';
CREATE TRIGGER cron_job_check
  BEFORE INSERT OR UPDATE ON cron.job
  FOR EACH ROW EXECUTE FUNCTION cron.job_check();
COMMENT ON TRIGGER cron_job_check ON cron.job IS 'Refuse options that cannot work together.';
CREATE TRIGGER cron_job_cache_invalidate
  AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON cron.job
  FOR EACH STATEMENT EXECUTE FUNCTION cron.job_cache_invalidate();
CREATE TRIGGER cron_job_changed
  AFTER INSERT OR UPDATE OR DELETE ON cron.job
  FOR EACH ROW EXECUTE FUNCTION cron.job_changed();

COMMENT ON TRIGGER cron_job_cache_invalidate ON cron.job IS 'Tell the launcher, at commit, that all jobs are gone (TRUNCATE).';
COMMENT ON TRIGGER cron_job_changed ON cron.job IS 'Tell the launcher, at commit, which jobs changed.';

-- Also where session_replication_role is replica.
ALTER TABLE cron.job ENABLE ALWAYS TRIGGER cron_job_before_update;
ALTER TABLE cron.job ENABLE ALWAYS TRIGGER cron_job_owner;
ALTER TABLE cron.job ENABLE ALWAYS TRIGGER cron_job_check;
ALTER TABLE cron.job ENABLE ALWAYS TRIGGER cron_job_cache_invalidate;
ALTER TABLE cron.job ENABLE ALWAYS TRIGGER cron_job_changed;

CREATE FUNCTION cron.pause_changed() RETURNS trigger
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_pause_changed';
COMMENT ON FUNCTION cron.pause_changed() IS 'Tell the launcher, at commit, that all jobs were paused or resumed.';
REVOKE ALL ON FUNCTION cron.pause_changed() FROM PUBLIC;

CREATE TRIGGER cron_pause_changed
  AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON cron.pause_state
  FOR EACH STATEMENT EXECUTE FUNCTION cron.pause_changed();
COMMENT ON TRIGGER cron_pause_changed ON cron.pause_state IS 'Tell the launcher, at commit, that all jobs were paused or resumed.';
ALTER TABLE cron.pause_state ENABLE ALWAYS TRIGGER cron_pause_changed;

/* ---- managing jobs: pg_cron's functions, with exactly its signatures ---- */

CREATE FUNCTION cron.schedule(schedule text, command text) RETURNS bigint
  LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'clockwork_schedule_unnamed';
COMMENT ON FUNCTION cron.schedule(text, text)
  IS 'Schedule a job: returns its jobid. Schedules are described in docs/schedules.md.';

CREATE FUNCTION cron.schedule(job_name text, schedule text, command text) RETURNS bigint
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_schedule_named';
COMMENT ON FUNCTION cron.schedule(text, text, text)
  IS 'Schedule a named job, or give the caller''s job of that name a new schedule and command: returns its jobid.';

CREATE FUNCTION cron.schedule_in_database(job_name text, schedule text, command text, database text,
                                          username text DEFAULT NULL, active boolean DEFAULT 'true')
  RETURNS bigint
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_schedule_named';
COMMENT ON FUNCTION cron.schedule_in_database(text, text, text, text, text, boolean)
  IS 'Schedule a named job in another database, or (superusers) as another role: returns its jobid.';
REVOKE ALL ON FUNCTION cron.schedule_in_database(text, text, text, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION cron.unschedule(job_id bigint) RETURNS boolean
  LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'clockwork_unschedule';
COMMENT ON FUNCTION cron.unschedule(bigint)
  IS 'Remove a job by its number. A run that goes on is left to finish.';

CREATE FUNCTION cron.unschedule(job_name text) RETURNS boolean
  LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'clockwork_unschedule_named';
COMMENT ON FUNCTION cron.unschedule(text)
  IS 'Remove the caller''s job of that name. A run that goes on is left to finish.';

CREATE FUNCTION cron.alter_job(job_id bigint, schedule text DEFAULT NULL, command text DEFAULT NULL,
                               database text DEFAULT NULL, username text DEFAULT NULL,
                               active boolean DEFAULT NULL)
  RETURNS void
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_alter_job';
COMMENT ON FUNCTION cron.alter_job(bigint, text, text, text, text, boolean)
  IS 'Alter the job identified by job_id. Any option left as NULL will not be modified.';
REVOKE ALL ON FUNCTION cron.alter_job(bigint, text, text, text, text, boolean) FROM PUBLIC;

/* ---- managing jobs: with options ---- */

CREATE FUNCTION cron.schedule(job_name text, schedule text, command text, options jsonb) RETURNS bigint
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_schedule_with_options';
COMMENT ON FUNCTION cron.schedule(text, text, text, jsonb)
  IS 'Schedule a named job with options, such as {"timezone": "Europe/Berlin"}: returns its jobid. The keys are columns of cron.job.';

CREATE FUNCTION cron.alter_job(job_id bigint, options jsonb) RETURNS void
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_alter_job_options';
COMMENT ON FUNCTION cron.alter_job(bigint, jsonb)
  IS 'Alter a job of the caller''s: each key of options is set, null resets it. Keys are name, schedule, command, database, username, active and the option columns of cron.job.';

/* ---- taking over what is held ---- */

CREATE FUNCTION cron.adopt() RETURNS bigint
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_adopt_all';
COMMENT ON FUNCTION cron.adopt()
  IS 'Let jobs that came with a restored or copied database run here: the caller''s own, or all for superusers and the owner of the extension, who thereby also give jobs of re-created roles to the roles of today. Returns how many were taken over.';

CREATE FUNCTION cron.adopt(job_id bigint) RETURNS boolean
  LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'clockwork_adopt';
COMMENT ON FUNCTION cron.adopt(bigint)
  IS 'The same for one job: true if it was taken over, false if there was no need.';

/* ---- controlling runs ---- */

CREATE FUNCTION cron.run_job(job_id bigint, label text DEFAULT NULL) RETURNS bigint
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_run_job';
COMMENT ON FUNCTION cron.run_job(bigint, text)
  IS 'Run a job now, whether it is active or not: returns the runid. The run starts when the transaction has committed.';

CREATE FUNCTION cron.run_job(job_name text, label text DEFAULT NULL) RETURNS bigint
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_run_job_named';
COMMENT ON FUNCTION cron.run_job(text, text)
  IS 'Run the job of that name now, whether it is active or not: returns the runid. The run starts when the transaction has committed.';

CREATE FUNCTION cron.backfill(job_id bigint, from_time timestamptz, to_time timestamptz,
                              on_overlap text DEFAULT NULL, dry_run boolean DEFAULT false)
  RETURNS TABLE (due_time timestamptz, action text, runid bigint, status text)
  LANGUAGE C ROWS 100 AS 'MODULE_PATHNAME', 'clockwork_backfill';
COMMENT ON FUNCTION cron.backfill(bigint, timestamptz, timestamptz, text, boolean)
  IS 'Run a job for its due times from from_time to to_time, both included, that have no successful run and none under way: one after the other, or as the job''s on_overlap or the given one (queue, parallel) says; with dry_run only list them. status is what there was before.';

CREATE FUNCTION cron.backfill(job_name text, from_time timestamptz, to_time timestamptz,
                              on_overlap text DEFAULT NULL, dry_run boolean DEFAULT false)
  RETURNS TABLE (due_time timestamptz, action text, runid bigint, status text)
  LANGUAGE C ROWS 100 AS 'MODULE_PATHNAME', 'clockwork_backfill_named';
COMMENT ON FUNCTION cron.backfill(text, timestamptz, timestamptz, text, boolean)
  IS 'Run the job of that name for its due times from from_time to to_time, both included, that have no successful run and none under way: one after the other, or as the job''s on_overlap or the given one (queue, parallel) says; with dry_run only list them. status is what there was before.';

CREATE FUNCTION cron.cancel(runid bigint, grace interval DEFAULT '10 seconds') RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_cancel';
COMMENT ON FUNCTION cron.cancel(bigint, interval)
  IS 'Cancel a run, at once: one that waits will not start, one that goes on is told to end, and its process is terminated after the grace period (NULL: never). False if it had ended.';

CREATE FUNCTION cron.wait(runid bigint, timeout interval DEFAULT NULL) RETURNS text
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_wait';
COMMENT ON FUNCTION cron.wait(bigint, interval)
  IS 'Wait until a run has ended: returns its status (succeeded, failed or skipped), or NULL after the timeout.';

CREATE PROCEDURE cron.wait_for(runid bigint, timeout interval DEFAULT NULL, INOUT status text DEFAULT NULL)
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_wait_for';
COMMENT ON PROCEDURE cron.wait_for(bigint, interval, text)
  IS 'Wait until a run has ended, without a snapshot or a lock of the caller''s: gives its status, or NULL after the timeout. Commits the current transaction.';

CREATE FUNCTION cron.current_run()
  RETURNS TABLE (jobid bigint, jobname text, runid bigint, due_time timestamptz, attempt int,
                 trigger text, label text, requested_by text, start_time timestamptz)
  LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'clockwork_current_run';
COMMENT ON FUNCTION cron.current_run()
  IS 'The run that this session executes; no row in any other session.';

/* ---- pausing ---- */

CREATE FUNCTION cron.pause(job_id bigint, reason text DEFAULT NULL) RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_pause';
COMMENT ON FUNCTION cron.pause(bigint, text)
  IS 'Pause a job: its due times pass by, and are not missed, until cron.resume. False if it was paused already; the reason is replaced then, if one is given.';

CREATE FUNCTION cron.pause(job_name text, reason text DEFAULT NULL) RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_pause_named';
COMMENT ON FUNCTION cron.pause(text, text)
  IS 'Pause the job of that name: its due times pass by, and are not missed, until cron.resume. False if it was paused already; the reason is replaced then, if one is given.';

CREATE FUNCTION cron.resume(job_id bigint) RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_resume';
COMMENT ON FUNCTION cron.resume(bigint) IS 'End the pause of a job. False if it was not paused.';

CREATE FUNCTION cron.resume(job_name text) RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_resume_named';
COMMENT ON FUNCTION cron.resume(text) IS 'End the pause of the job of that name. False if it was not paused.';

CREATE FUNCTION cron.pause_all(reason text DEFAULT NULL) RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_pause_all';
COMMENT ON FUNCTION cron.pause_all(text)
  IS 'Pause everything, over restarts too, until cron.resume_all: no run starts, whoever asks for it. False if that was so already.';
REVOKE ALL ON FUNCTION cron.pause_all(text) FROM PUBLIC;

CREATE FUNCTION cron.resume_all() RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_resume_all';
COMMENT ON FUNCTION cron.resume_all()
  IS 'End what cron.pause_all or cron.drain began; jobs that were paused one by one stay paused. False if nothing was to end.';
REVOKE ALL ON FUNCTION cron.resume_all() FROM PUBLIC;

CREATE FUNCTION cron.drain(timeout interval DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
  LANGUAGE C AS 'MODULE_PATHNAME', 'clockwork_drain';
COMMENT ON FUNCTION cron.drain(interval, text)
  IS 'Pause everything as cron.pause_all does, at once, and wait until no run goes on. False after the timeout: then some still do.';
REVOKE ALL ON FUNCTION cron.drain(interval, text) FROM PUBLIC;

/* ---- when is it due? ---- */

CREATE FUNCTION cron.next_runs(schedule text, timezone text DEFAULT NULL,
                               from_time timestamptz DEFAULT pg_catalog.now(), n int DEFAULT 5)
  RETURNS SETOF timestamptz
  LANGUAGE C STABLE PARALLEL SAFE ROWS 5 AS 'MODULE_PATHNAME', 'clockwork_next_runs';
COMMENT ON FUNCTION cron.next_runs(text, text, timestamptz, int)
  IS 'The next n due times of a schedule strictly after from_time; no rows if there are none. NULL timezone means cron.timezone; an interval is counted from from_time.';

CREATE FUNCTION cron.explain(schedule text, timezone text DEFAULT NULL,
                             from_time timestamptz DEFAULT pg_catalog.now(), n int DEFAULT 5,
                             job_name text DEFAULT NULL)
  RETURNS SETOF text
  LANGUAGE C STABLE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'clockwork_explain';
COMMENT ON FUNCTION cron.explain(text, text, timestamptz, int, text)
  IS 'A schedule explained: its normalised form, its meaning in words, its next n (0 to 100) due times in the zone and in UTC, and what clock changes in the year after from_time do to it. H is resolved for job_name.';

CREATE FUNCTION cron.due_times(job cron.job, from_time timestamptz, to_time timestamptz)
  RETURNS SETOF timestamptz
  LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'clockwork_due_times';
COMMENT ON FUNCTION cron.due_times(cron.job, timestamptz, timestamptz)
  IS 'The due times of a job after from_time, up to and including to_time, whether it is active or not; no rows if its schedule or time zone is wrong.';

CREATE FUNCTION cron.start_time(job cron.job, due_time timestamptz) RETURNS timestamptz
  LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'clockwork_start_time';
COMMENT ON FUNCTION cron.start_time(cron.job, timestamptz)
  IS 'When the run for a due time of the job is to start: at the due time, or later by the job''s jitter; NULL if its schedule or time zone is wrong.';

CREATE FUNCTION cron.upcoming(from_time timestamptz DEFAULT pg_catalog.now(),
                              to_time timestamptz DEFAULT pg_catalog.now()
                                OPERATOR(pg_catalog.+) '1 day'::pg_catalog.interval)
  RETURNS TABLE (due_time timestamptz, jobid bigint, jobname text, start_time timestamptz)
  LANGUAGE SQL STABLE PARALLEL SAFE ROWS 1000
  SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT due.due_time, job.jobid, job.jobname, cron.start_time(job, due.due_time)
      FROM cron.job AS job,
           LATERAL cron.due_times(job, upcoming.from_time, upcoming.to_time) AS due (due_time)
     WHERE job.active AND job.paused_reason IS NULL
       AND job.installation OPERATOR(pg_catalog.=) (SELECT cron.installation())
     ORDER BY due.due_time, job.jobid
  $$;
COMMENT ON FUNCTION cron.upcoming(timestamptz, timestamptz)
  IS 'All due times of the active jobs the caller may see, after from_time, up to and including to_time (a day from now unless given), and when their runs are to start.';

/*
 * The settings, cron.*.
 *
 * Every setting of pg_cron exists under its own name, with its range and
 * context, so that a configuration file written for pg_cron is accepted as it
 * is; those that have no effect here say so in their description.
 */
#ifndef CLOCKWORK_GUC_H
#define CLOCKWORK_GUC_H

#include "datatype/timestamp.h"

extern char *cron_database_name;
extern bool cron_log_statement;
extern bool cron_log_run;
extern bool cron_enable_superuser_jobs;
extern char *cron_host;
extern bool cron_launch_active_jobs;
extern int	cron_max_running_jobs;
extern int	cron_max_running_jobs_per_role;	/* 0: no limit */
extern int	cron_timeout_grace; /* milliseconds */
extern int	cron_max_retry_delay;	/* seconds */
extern int	cron_worker_idle_timeout;	/* milliseconds; 0: workers are not reused */
extern int	cron_worker_max_runs;
extern bool cron_start_ahead;
extern int	cron_log_min_messages;
extern char *cron_timezone;
extern bool cron_match_dom_and_dow;

/* Define all settings; call once, from _PG_init. */
extern void clockwork_guc_define(void);

/* The text of cron.log_min_messages, for the launcher's own session. */
extern const char *clockwork_guc_log_min_messages(void);

/* How many runs may go on at once: cron.max_running_jobs, at least 1. */
extern int	clockwork_guc_slots(void);

/*
 * Show this session which run it executes: cron.job_id, cron.run_id,
 * cron.due_time and cron.attempt, which nobody else can set.
 */
extern void clockwork_guc_show_run(int64 jobid, int64 runid, TimestampTz due_time, int attempt);

/*
 * What the values of these and of application_name take of the memory of parameters,
 * where the server keeps that in a context (from 16 on).
 */
extern Size clockwork_guc_run_memory(void);

#endif							/* CLOCKWORK_GUC_H */

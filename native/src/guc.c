/*
 * The settings, cron.*: definitions and checks.
 *
 * Names, types, ranges and contexts are those of pg_cron (see
 * docs/compatibility.md); like there, all of them are visible to superusers
 * and members of pg_read_all_settings only.
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "guc.h"

#include "access/parallel.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

char	   *cron_database_name = NULL;
bool		cron_log_statement = true;
bool		cron_log_run = true;
bool		cron_enable_superuser_jobs = true;
char	   *cron_host = NULL;
bool		cron_launch_active_jobs = true;
int			cron_max_running_jobs = 32;
int			cron_max_running_jobs_per_role = 0;
int			cron_timeout_grace = 10000;
int			cron_max_retry_delay = 3600;
int			cron_worker_idle_timeout = 100;
bool		cron_start_ahead = true;
int			cron_worker_max_runs = 1000;
int			cron_log_min_messages = WARNING;
char	   *cron_timezone = NULL;
bool		cron_match_dom_and_dow = false;

static bool cron_use_background_workers = false;

/* The run of this session; empty outside of one. */
static char *cron_job_id = NULL;
static char *cron_run_id = NULL;
static char *cron_due_time = NULL;
static char *cron_attempt = NULL;
static bool is_showing_run = false;

/* The levels of log_min_messages, by the names that setting has. */
static const struct config_enum_entry message_levels[] = {
	{"debug5", DEBUG5, false},
	{"debug4", DEBUG4, false},
	{"debug3", DEBUG3, false},
	{"debug2", DEBUG2, false},
	{"debug1", DEBUG1, false},
	{"debug", DEBUG2, true},
	{"info", INFO, false},
	{"notice", NOTICE, false},
	{"warning", WARNING, false},
	{"error", ERROR, false},
	{"log", LOG, false},
	{"fatal", FATAL, false},
	{"panic", PANIC, false},
	{NULL, 0, false}
};

static bool
check_timezone(char **newval, void **extra, GucSource source)
{
	pg_tz	   *zone = pg_tzset(*newval);

	if (zone == NULL)
	{
		GUC_check_errdetail("Time zone \"%s\" is not recognized.", *newval);
		return false;
	}
	if (!pg_tz_acceptable(zone))
	{
		GUC_check_errdetail("Time zone \"%s\" uses leap seconds, which are not supported.",
							*newval);
		return false;
	}
	return true;
}

/* Set by us, or copied by the server into a parallel worker of the session. */
static bool
check_run(char **newval, void **extra, GucSource source)
{
	if (is_showing_run || source == PGC_S_DEFAULT || IsParallelWorker())
		return true;
	GUC_check_errcode(ERRCODE_CANT_CHANGE_RUNTIME_PARAM);
	GUC_check_errmsg("the parameters that describe a run cannot be changed");
	return false;
}

static void
show_run(const char *name, const char *value)
{
	is_showing_run = true;
	SetConfigOption(name, value, PGC_USERSET, PGC_S_OVERRIDE);
	is_showing_run = false;
}

void
clockwork_guc_show_run(int64 jobid, int64 runid, TimestampTz due_time, int attempt)
{
	char		number[32];

	snprintf(number, sizeof(number), INT64_FORMAT, jobid);
	show_run("cron.job_id", jobid ? number : "");
	snprintf(number, sizeof(number), INT64_FORMAT, runid);
	show_run("cron.run_id", runid ? number : "");
	show_run("cron.due_time", due_time ? timestamptz_to_str(due_time) : "");
	snprintf(number, sizeof(number), "%d", attempt);
	show_run("cron.attempt", number);
}

Size
clockwork_guc_run_memory(void)
{
	char	   *values[] = {application_name, cron_job_id, cron_run_id, cron_due_time, cron_attempt};
	Size		taken = 0;

	for (int i = 0; i < (int) lengthof(values); i++)
		if (values[i])
			taken += GetMemoryChunkSpace(values[i]);
	return taken;
}

const char *
clockwork_guc_log_min_messages(void)
{
	for (const struct config_enum_entry *entry = message_levels; entry->name; entry++)
		if (entry->val == cron_log_min_messages)
			return entry->name;
	return "warning";
}

int
clockwork_guc_slots(void)
{
	return Max(cron_max_running_jobs, 1);
}

static void
define_run(const char *name, const char *description, char **variable)
{
	DefineCustomStringVariable(name, description,
							   "Empty in sessions that are not a job's run.  Cannot be changed.",
							   variable, "", PGC_USERSET,
							   GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE | GUC_NO_RESET_ALL,
							   check_run, NULL, NULL);
}

void
clockwork_guc_define(void)
{
	int			most;

	DefineCustomStringVariable("cron.database_name",
							   "Database in which pg_clockwork metadata is kept.",
							   NULL,
							   &cron_database_name, "postgres",
							   PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomBoolVariable("cron.log_statement",
							 "Log all cron statements prior to execution.",
							 NULL,
							 &cron_log_statement, true,
							 PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("cron.log_run",
							 "Log all jobs runs into the job_run_details table",
							 NULL,
							 &cron_log_run, true,
							 PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("cron.enable_superuser_jobs",
							 "Allow jobs to be scheduled as superuser",
							 "When off, such jobs are neither accepted nor run.",
							 &cron_enable_superuser_jobs, true,
							 PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("cron.host",
							   "Hostname to connect to postgres.",
							   "This setting has no effect: jobs always run in background workers. "
							   "It is stored as the nodename of new jobs.",
							   &cron_host, "localhost",
							   PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomBoolVariable("cron.use_background_workers",
							 "Use background workers instead of client sessions.",
							 "This setting has no effect on how jobs run: they always run in background workers. "
							 "It only chooses the default and the range of cron.max_running_jobs.",
							 &cron_use_background_workers, false,
							 PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("cron.launch_active_jobs",
							 "Launch jobs that are defined as active.",
							 "When off, no run starts; runs that go on are left alone.",
							 &cron_launch_active_jobs, true,
							 PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	/*
	 * The range follows pg_cron's, which depends on the setting just read, so
	 * that a configuration that pg_cron accepts is accepted here.  Runs beyond
	 * the free background worker slots of the server wait for one.
	 */
	most = cron_use_background_workers ? Max(max_worker_processes - 1, 1) : MaxConnections;

	/* A variable has to begin with the default that is declared for it. */
	cron_max_running_jobs = Min(cron_use_background_workers ? 5 : 32, most);
	DefineCustomIntVariable("cron.max_running_jobs",
							"Maximum number of jobs that can run concurrently.",
							"A job needs a background worker: see max_worker_processes. 0 means 1.",
							&cron_max_running_jobs,
							cron_max_running_jobs,
							0, most,
							PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							NULL, NULL, NULL);

	DefineCustomIntVariable("cron.max_running_jobs_per_role",
							"Maximum number of jobs of one role that can run concurrently.",
							"0 means no limit of its own.",
							&cron_max_running_jobs_per_role,
							0, 0, MaxConnections,
							PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							NULL, NULL, NULL);

	DefineCustomIntVariable("cron.timeout_grace",
							"Time that a run has to end after it was canceled, before it is terminated.",
							NULL,
							&cron_timeout_grace,
							10000, 0, 3600 * 1000,
							PGC_SIGHUP, GUC_SUPERUSER_ONLY | GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("cron.max_retry_delay",
							"Longest pause between two attempts of a run, at which doubling ends.",
							"A retry_delay that is longer is kept as it is.",
							&cron_max_retry_delay,
							3600, 1, 7 * 24 * 3600,
							PGC_SIGHUP, GUC_SUPERUSER_ONLY | GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("cron.worker_idle_timeout",
							"Time that a worker waits for another run of its role and database before it ends.",
							"0 starts a worker for each run.",
							&cron_worker_idle_timeout,
							100, 0, 3600 * 1000,
							PGC_SIGHUP, GUC_SUPERUSER_ONLY | GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("cron.worker_max_runs",
							"Number of runs after which a worker ends.",
							NULL,
							&cron_worker_max_runs,
							1000, 1, INT_MAX,
							PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("cron.start_ahead",
							 "Have workers connected and records written a moment before runs are due.",
							 "When off, both are begun when a run is due.",
							 &cron_start_ahead, true,
							 PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	DefineCustomEnumVariable("cron.log_min_messages",
							 "log_min_messages for the launcher bgworker.",
							 NULL,
							 &cron_log_min_messages, WARNING, message_levels,
							 PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("cron.timezone",
							   "Specify timezone used for cron schedule.",
							   "Jobs with a timezone of their own use that instead.",
							   &cron_timezone, "GMT",
							   PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   check_timezone, NULL, NULL);

	DefineCustomBoolVariable("cron.match_dom_and_dow",
							 "Requires a day to match both the day-of-month and day-of-week fields.",
							 NULL,
							 &cron_match_dom_and_dow, false,
							 PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							 NULL, NULL, NULL);

	define_run("cron.job_id", "Job whose run this session executes.", &cron_job_id);
	define_run("cron.run_id", "Run that this session executes.", &cron_run_id);
	define_run("cron.due_time", "Due time of the run that this session executes.", &cron_due_time);
	define_run("cron.attempt", "Which attempt at its due time this session executes.", &cron_attempt);

	MarkGUCPrefixReserved("cron");
}

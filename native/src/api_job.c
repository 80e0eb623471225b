/*
 * The SQL functions that manage jobs.
 *
 * pg_cron's functions keep its signatures, its checks in its order, and its
 * error texts, because clients match on them.  All of them end in the same
 * few steps: check the schedule, the role and the database, then write the
 * row as the tables' owner.  The rights of the caller are what is checked,
 * never what is used.
 */
#include "postgres.h"

#include "compat.h"
#include "acl.h"
#include "after_check.h"
#include "catalog.h"
#include "core/schedule.h"
#include "extension.h"
#include "guc.h"
#include "job_options.h"
#include "job_rows.h"
#include "run_settings.h"
#include "schedule_check.h"
#include "shmem.h"
#include "zone.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(clockwork_schedule_unnamed);
PG_FUNCTION_INFO_V1(clockwork_schedule_named);
PG_FUNCTION_INFO_V1(clockwork_schedule_with_options);
PG_FUNCTION_INFO_V1(clockwork_unschedule);
PG_FUNCTION_INFO_V1(clockwork_unschedule_named);
PG_FUNCTION_INFO_V1(clockwork_alter_job);
PG_FUNCTION_INFO_V1(clockwork_alter_job_options);

/* The text of an argument; NULL if it is null or was not given. */
static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_NARGS() <= number || PG_ARGISNULL(number))
		return NULL;
	return text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static void
require_argument(const void *value, const char *name)
{
	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s can not be NULL", name)));
}

/* pg_cron's advice, which clients may know: given where we have none better. */
#define COMMON_HINT \
	"Use cron format (e.g. 5 4 * * *), or interval format '[1-59] seconds'"

/*
 * Warn of a schedule that can be proved to have no due time; refuse an @at
 * that is over: it could only be a mistake.
 */
static void
check_that_it_comes(const char *schedule, const Schedule *parsed, const char *timezone)
{
	ScheduleInstant now = clockwork_zone_instant(GetCurrentTimestamp());
	pg_tz	   *found = clockwork_zone_find(timezone);
	ScheduleZone zone = clockwork_zone_callbacks(found);
	char		why[256];

	if (found == NULL)
		return;					/* a row edited by hand: the launcher reports it */
	if (clockwork_schedule_never_runs_after(parsed, cron_match_dom_and_dow, now,
											why, sizeof(why)))
		ereport(WARNING,
				(errmsg("schedule \"%s\" never runs", schedule),
				 errdetail("%s", why)));
	else if (parsed->kind == SCHEDULE_AT &&
			 clockwork_schedule_next(parsed, &zone, false, now, now) == SCHEDULE_NEVER)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid schedule: %s", schedule),
				 errdetail("The time is in the past.")));
}

/*
 * Error unless the schedule is one; say what is accepted but worth a word.
 * `key` is what "H" is derived from: the job's name, or NULL.  `timezone` is
 * the job's own, or NULL.
 */
static void
check_schedule(const char *schedule, const char *key, const char *timezone)
{
	Schedule	parsed;
	ScheduleReport report;

	clockwork_schedule_check(schedule, key, COMMON_HINT, &parsed, &report);
	if (report.notice[0])
		ereport(NOTICE,
				(errmsg("%s", report.notice),
				 report.notice_detail[0] ? errdetail("%s", report.notice_detail) : 0,
				 report.notice_hint[0] ? errhint("%s", report.notice_hint) : 0));
	if (report.fields > 5)
		ereport(NOTICE,
				(errmsg("schedule has %d fields: the first one is seconds", report.fields),
				 errhint("A cron expression without seconds has 5 fields.")));
	check_that_it_comes(schedule, &parsed, timezone);
}

/* Common to all that write: the extension is there and we may write. */
static void
begin_write(ExtensionObjects *objects, const char *statement)
{
	(void) clockwork_shmem_panel();
	PreventCommandIfReadOnly(statement);
	clockwork_extension_require(objects);
}

/*
 * Schedule a job.  NULL username means the current user, NULL database the
 * home database.  Checks stand in pg_cron's order.
 */
static int64
schedule_job(const ExtensionObjects *objects, char *name, char *schedule, char *command,
			 char *database, char *username, bool active, const char *timezone)
{
	JobDefinition job;

	(void) clockwork_timezone_check(timezone);
	check_schedule(schedule, name, timezone);
	if (username)
	{
		if (!superuser())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be superuser to create a job for another role")));
		clockwork_acl_check_login(username);
	}
	memset(&job, 0, sizeof(job));
	job.name = name;
	job.schedule = schedule;
	job.command = command;
	job.database = database ? database : cron_database_name;
	job.username = username ? username : clockwork_acl_current_user();
	job.active = active;
	clockwork_acl_check_job(job.username, job.database);
	clockwork_after_check(objects, schedule, name, job.username, false);
	if (username == NULL)
		clockwork_acl_warn_no_login(job.username);
	return clockwork_catalog_put_job(objects, &job, cron_host);
}

/* cron.schedule(schedule, command), strict */
Datum
clockwork_schedule_unnamed(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "INSERT");
	PG_RETURN_INT64(schedule_job(&objects, NULL, text_argument(fcinfo, 0),
								 text_argument(fcinfo, 1), NULL, NULL, true, NULL));
}

/*
 * cron.schedule(job_name, schedule, command) and
 * cron.schedule_in_database(job_name, schedule, command, database, username, active)
 */
Datum
clockwork_schedule_named(PG_FUNCTION_ARGS)
{
	char	   *name = text_argument(fcinfo, 0);
	char	   *schedule = text_argument(fcinfo, 1);
	char	   *command = text_argument(fcinfo, 2);
	bool		active = PG_NARGS() <= 5 || PG_ARGISNULL(5) || PG_GETARG_BOOL(5);
	ExtensionObjects objects;

	require_argument(name, "job_name");
	require_argument(schedule, "schedule");
	require_argument(command, "command");
	begin_write(&objects, "INSERT");
	PG_RETURN_INT64(schedule_job(&objects, name, schedule, command,
								 text_argument(fcinfo, 3), text_argument(fcinfo, 4),
								 active, NULL));
}

static void
refuse_job(int64 jobid)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("Job " INT64_FORMAT " does not exist or you don't own it", jobid)));
}

/*
 * What is held may be pinned to a number from elsewhere: the name must agree.
 */
static bool
owns_job(const JobDefinition *job)
{
	if (job->held && !superuser() && clockwork_acl_find_role(job->username) != job->owner)
		return false;
	return clockwork_acl_is_owner(job->owner);
}

/* The caller's right to change this job. */
static void
check_ownership(const JobDefinition *job, int64 jobid)
{
	if (job == NULL || !owns_job(job))
		refuse_job(jobid);
}

/*
 * Check a change against the job as it will be, and write it.
 */
static void
change_job(const ExtensionObjects *objects, const JobDefinition *job, const JobChange *change)
{
	const char *name = job_change_value(change, "jobname");
	const char *schedule = job_change_value(change, "schedule");
	const char *username = job_change_value(change, "username");
	const char *database = job_change_value(change, "database");
	const char *timezone = job_change_value(change, "timezone");
	const char *settings = job_change_value(change, "settings");
	const char *owner;
	bool		keeps_settings = !job_change_has(change, "settings");

	if (timezone)
		(void) clockwork_timezone_check(timezone);
	if (schedule || name)
		check_schedule(schedule ? schedule : job->schedule, name ? name : job->name,
					   timezone ? timezone : job->timezone);
	if (username)
	{
		if (!superuser())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be superuser to alter username")));
		clockwork_acl_check_login(username);
	}
	owner = clockwork_acl_find_owner(job->owner, job->username);
	clockwork_acl_check_job(username ? username : owner ? owner : job->username,
							database ? database : job->database);
	if (username && keeps_settings)
		settings = job->settings;	/* may that role set them, too? */
	if (settings)
		clockwork_run_settings_check(settings, username ? username : owner ? owner : job->username);
	if (schedule || name || username)
		clockwork_after_check(objects, schedule ? schedule : job->schedule,
							  name ? name : job->name,
							  username ? username : job->username, false);
	if (!clockwork_catalog_change_job(objects, job, change))
		refuse_job(job->jobid);
}

static void
refuse_empty_change(const JobChange *change)
{
	if (change->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no updates specified"),
				 errhint("You must specify at least one job attribute to change when calling alter_job")));
}

/* cron.schedule(job_name, schedule, command, options) */
Datum
clockwork_schedule_with_options(PG_FUNCTION_ARGS)
{
	char	   *name = text_argument(fcinfo, 0);
	char	   *schedule = text_argument(fcinfo, 1);
	char	   *command = text_argument(fcinfo, 2);
	JobChange	change = {0};
	const char *database;
	const char *username;
	ExtensionObjects objects;
	JobDefinition *job;
	int64		jobid;

	require_argument(name, "job_name");
	require_argument(schedule, "schedule");
	require_argument(command, "command");
	if (!PG_ARGISNULL(3))
		clockwork_job_options_read(PG_GETARG_JSONB_P(3), true, &change);
	begin_write(&objects, "INSERT");

	database = job_change_value(&change, "database");
	username = job_change_value(&change, "username");
	if (database && strcmp(database, cron_database_name) != 0)
		clockwork_acl_check_other_database();
	jobid = schedule_job(&objects, name, schedule, command,
						 (char *) database, (char *) username, true,
						 job_change_value(&change, "timezone"));
	if (change.count > 0)
	{
		/* Visible to the next command: the row that was just written. */
		CommandCounterIncrement();
		job = clockwork_job_rows_find(&objects, jobid);
		check_ownership(job, jobid);
		change_job(&objects, job, &change);
	}
	PG_RETURN_INT64(jobid);
}

/* cron.unschedule(job_id), strict */
Datum
clockwork_unschedule(PG_FUNCTION_ARGS)
{
	int64		jobid = PG_GETARG_INT64(0);
	ExtensionObjects objects;
	JobDefinition *job;

	begin_write(&objects, "DELETE");
	job = clockwork_job_rows_find(&objects, jobid);
	if (job == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not find valid entry for job " INT64_FORMAT, jobid)));
	if (!owns_job(job) && !clockwork_acl_may_delete_all(objects.job))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "job");
	if (!clockwork_catalog_delete_job(&objects, jobid, job->owner))
		refuse_job(jobid);
	PG_RETURN_BOOL(true);
}

/* cron.unschedule(job_name), strict */
Datum
clockwork_unschedule_named(PG_FUNCTION_ARGS)
{
	char	   *name = text_argument(fcinfo, 0);
	ExtensionObjects objects;
	int64		jobid;

	begin_write(&objects, "DELETE");
	jobid = clockwork_catalog_find_named(&objects, name, GetUserId());
	if (jobid == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not find valid entry for job '%s'", name)));
	if (!clockwork_catalog_delete_job(&objects, jobid, GetUserId()))
		refuse_job(jobid);
	PG_RETURN_BOOL(true);
}

/*
 * An untyped literal is resolved to the function that takes text, so options
 * written without a cast end up here.
 */
static void
refuse_options_as_schedule(const char *schedule)
{
	if (schedule && schedule[0] == '{')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid schedule: %s", schedule),
				 errhint("To alter options, write options => '...' or '...'::jsonb.")));
}

/* cron.alter_job(job_id, schedule, command, database, username, active) */
Datum
clockwork_alter_job(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"schedule", "command", "database", "username"};
	JobChange	change = {0};
	ExtensionObjects objects;
	JobDefinition *job;

	if (PG_ARGISNULL(0))
		require_argument(NULL, "job_id");
	for (int i = 0; i < lengthof(columns); i++)
		if (!PG_ARGISNULL(i + 1))
			job_change_set(&change, columns[i], "pg_catalog.text", text_argument(fcinfo, i + 1));
	refuse_options_as_schedule(job_change_value(&change, "schedule"));
	if (!PG_ARGISNULL(5))
		job_change_set(&change, "active", "pg_catalog.bool",
					   PG_GETARG_BOOL(5) ? "true" : "false");
	begin_write(&objects, "UPDATE");
	refuse_empty_change(&change);

	job = clockwork_job_rows_find(&objects, PG_GETARG_INT64(0));
	check_ownership(job, PG_GETARG_INT64(0));
	change_job(&objects, job, &change);
	PG_RETURN_VOID();
}

/* cron.alter_job(job_id, options) */
Datum
clockwork_alter_job_options(PG_FUNCTION_ARGS)
{
	JobChange	change = {0};
	ExtensionObjects objects;
	JobDefinition *job;
	const char *database;

	if (PG_ARGISNULL(0))
		require_argument(NULL, "job_id");
	if (!PG_ARGISNULL(1))
		clockwork_job_options_read(PG_GETARG_JSONB_P(1), false, &change);
	begin_write(&objects, "UPDATE");
	refuse_empty_change(&change);

	job = clockwork_job_rows_find(&objects, PG_GETARG_INT64(0));
	check_ownership(job, PG_GETARG_INT64(0));
	database = job_change_value(&change, "database");
	if (database && strcmp(database, job->database) != 0 &&
		strcmp(database, cron_database_name) != 0)
		clockwork_acl_check_other_database();
	change_job(&objects, job, &change);
	PG_RETURN_VOID();
}

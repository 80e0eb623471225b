/*
 * The SQL functions by which people get runs: now, for past due times, and
 * from inside one.
 *
 * Asking for a run is writing its record, queued, in the caller's transaction.
 * Once that has committed, the launcher takes it in like any other run.
 */
#include "postgres.h"

#include "compat.h"
#include "acl.h"
#include "catalog.h"
#include "extension.h"
#include "job_rows.h"
#include "run_log.h"
#include "run_request.h"
#include "shmem.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(clockwork_run_job);
PG_FUNCTION_INFO_V1(clockwork_run_job_named);
PG_FUNCTION_INFO_V1(clockwork_backfill);
PG_FUNCTION_INFO_V1(clockwork_backfill_named);
PG_FUNCTION_INFO_V1(clockwork_current_run);
PG_FUNCTION_INFO_V1(clockwork_pause);
PG_FUNCTION_INFO_V1(clockwork_pause_named);
PG_FUNCTION_INFO_V1(clockwork_resume);
PG_FUNCTION_INFO_V1(clockwork_resume_named);

/* The longest label, in bytes. */
#define LABEL_MAX 64

/* So many runs one call of cron.backfill asks for, at most. */
#define BACKFILL_MAX 1000

/* So many due times it looks at. */
#define BACKFILL_LOOK_MAX 100000

/* So many jobs of one name are told apart. */
#define SAME_NAME_MAX 100

static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static void
require_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s can not be NULL", name)));
}

static void
begin_write(ExtensionObjects *objects, const char *statement)
{
	(void) clockwork_shmem_panel();
	PreventCommandIfReadOnly(statement);
	clockwork_extension_require(objects);
}

/* ---- finding the job ---- */

static void
refuse_job(int64 jobid)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("Job " INT64_FORMAT " does not exist or you don't own it", jobid)));
}

/* What is held may be pinned to a number from elsewhere: the name must agree. */
static bool
owns_job(const JobDefinition *job)
{
	if (job->held && !superuser() && clockwork_acl_find_role(job->username) != job->owner)
		return false;
	return clockwork_acl_is_owner(job->owner);
}

/* Nobody runs what belongs to another installation. */
static void
refuse_held(const JobDefinition *job)
{
	if (job->held)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " is held", job->jobid),
				 errdetail("The job belongs to another installation of pg_clockwork."),
				 errhint("To let it run here, use SELECT cron.adopt(" INT64_FORMAT ").", job->jobid)));
}

/* The job that argument 0 numbers, if the caller may control it. */
static JobDefinition *
find_numbered_job(FunctionCallInfo fcinfo, const ExtensionObjects *objects)
{
	int64		jobid;
	JobDefinition *job;

	require_argument(fcinfo, 0, "job_id");
	jobid = PG_GETARG_INT64(0);
	job = clockwork_job_rows_find(objects, jobid);
	if (job == NULL || !owns_job(job))
		refuse_job(jobid);
	return job;
}

/*
 * The job that argument 0 names: the caller's own, or else the only one of
 * that name that the caller may control.
 */
static JobDefinition *
find_named_job(FunctionCallInfo fcinfo, const ExtensionObjects *objects)
{
	int64		jobids[SAME_NAME_MAX];
	JobDefinition *found = NULL;
	bool		is_unique = true;
	char	   *name;
	int			count;

	require_argument(fcinfo, 0, "job_name");
	name = text_argument(fcinfo, 0);
	count = clockwork_catalog_list_named(objects, name, jobids, SAME_NAME_MAX);
	for (int i = 0; i < count; i++)
	{
		JobDefinition *job = clockwork_job_rows_find(objects, jobids[i]);

		if (job == NULL || !owns_job(job))
			continue;
		if (job->owner == GetUserId())
			return job;
		is_unique = found == NULL;
		found = job;
	}
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not find valid entry for job '%s'", name)));
	if (!is_unique)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_PARAMETER),
				 errmsg("job name \"%s\" is not unique", name),
				 errdetail("Several roles have a job of that name."),
				 errhint("Give the number of the job instead.")));
	return found;
}

/* ---- asking for runs ---- */

/* A new number for a run; nobody needs rights on the sequence for it. */
static int64
draw_runid(void)
{
	Oid			sequence = get_relname_relid("runid_seq", get_namespace_oid("cron", false));

	return nextval_internal(sequence, false);
}

/* Returns the runid, or 0 if this due time and attempt has its record already. */
static int64
ask_for_run(const ExtensionObjects *objects, const JobDefinition *job, TimestampTz due_time,
			int32 attempt, const char *trigger, const char *label, RunOrder order)
{
	RunEnding	state = {.status = "queued"};
	RunIdentity identity;
	ExtensionSection section;
	int64		runid;

	memset(&identity, 0, sizeof(identity));
	identity.jobid = job->jobid;
	identity.due_time = due_time;
	identity.attempt = attempt;
	identity.trigger = trigger;
	identity.database = job->database;
	identity.username = clockwork_acl_find_owner(job->owner, job->username);
	identity.command = job->command;
	identity.label = label;
	identity.requested_by = clockwork_acl_current_user();

	clockwork_run_request_prepare(objects->job, draw_runid);
	clockwork_extension_enter(&section, objects->owner);
	state.reason = clockwork_run_log_order(order);
	runid = clockwork_run_log_insert_queued(&identity, &state);
	clockwork_extension_leave(&section);
	if (runid != 0)
		clockwork_run_request_note(runid);
	return runid;
}

static void
check_label(const char *label)
{
	if (label && strlen(label) > LABEL_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("label is too long"),
				 errdetail("A label has at most %d bytes; this has %zu.", LABEL_MAX, strlen(label))));
}

/* A run that is asked for now may have to wait longer than the caller thinks. */
static void
notice_pause(const ExtensionObjects *objects)
{
	PauseState	pause;

	clockwork_catalog_read_pause(objects, &pause);
	if (pause.reason)
		ereport(NOTICE,
				(errmsg("all jobs are paused: the run will wait"),
				 errdetail("%s", pause.reason),
				 errhint("cron.resume_all ends the pause.")));
}

static int64
run_now(const ExtensionObjects *objects, const JobDefinition *job, const char *label)
{
	TimestampTz due_time = GetCurrentTimestamp();
	int64		runid;

	check_label(label);
	refuse_held(job);

	/* Schedules are due at full seconds: leave those to them. */
	if (due_time % USECS_PER_SEC == 0)
		due_time++;
	while ((runid = ask_for_run(objects, job, due_time, 1, "manual", label, RUN_AS_JOB)) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		due_time++;
	}
	notice_pause(objects);
	return runid;
}

/* cron.run_job(job_id, label) */
Datum
clockwork_run_job(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "INSERT");
	PG_RETURN_INT64(run_now(&objects, find_numbered_job(fcinfo, &objects), text_argument(fcinfo, 1)));
}

/* cron.run_job(job_name, label) */
Datum
clockwork_run_job_named(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "INSERT");
	PG_RETURN_INT64(run_now(&objects, find_named_job(fcinfo, &objects), text_argument(fcinfo, 1)));
}

/* ---- backfill ---- */

/* A past due time, and what its best record says. */
typedef struct PastDue
{
	TimestampTz due_time;
	int64		runid;			/* 0: no record */
	char	   *status;
	int32		attempt;		/* the last one; 0: none */
	bool		is_missing;		/* it is to be run */
} PastDue;

static void
check_range(TimestampTz from, TimestampTz to)
{
	if (TIMESTAMP_NOT_FINITE(from) || TIMESTAMP_NOT_FINITE(to))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from_time and to_time must be finite")));
	if (from > to)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from_time is after to_time")));
	if (to > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("to_time is in the future"),
				 errdetail("Only due times that are over can be run by a backfill."),
				 errhint("Use now() for to_time, or cron.next_runs to see what is to come.")));
}

/* The runs of a backfill go as those of the job do, unless the caller says how. */
static RunOrder
order_of_backfill(const JobDefinition *job, const char *on_overlap)
{
	bool		is_parallel = job->rules->on_overlap == POLICY_PARALLEL;

	if (on_overlap == NULL)
		return RUN_AS_JOB;
	if (strcmp(on_overlap, "queue") == 0)
		return is_parallel ? RUN_ALONE : RUN_AS_JOB;
	if (strcmp(on_overlap, "parallel") == 0)
		return is_parallel ? RUN_AS_JOB : RUN_BESIDE_OTHERS;
	if (strcmp(on_overlap, "skip") == 0 || strcmp(on_overlap, "replace") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a backfill cannot have on_overlap \"%s\"", on_overlap),
				 errdetail("Its own runs would push each other out."),
				 errhint("Use \"queue\" or \"parallel\", or leave it out.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized value \"%s\" for on_overlap", on_overlap),
			 errhint("Use \"queue\" or \"parallel\", or leave it out.")));
	return RUN_AS_JOB;			/* not reached */
}

/* The due times of the range, in order, in the current memory context. */
static PastDue *
list_past(const ExtensionObjects *objects, const JobDefinition *job, TimestampTz from, TimestampTz to, int *count)
{
	Oid			types[3] = {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[3];
	ExtensionSection section;
	PastDue    *past;

	/* cron.due_times lists what comes after its from_time. */
	values[0] = Int64GetDatum(job->jobid);
	values[1] = TimestampTzGetDatum(from - 1);
	values[2] = TimestampTzGetDatum(to);
	clockwork_extension_enter(&section, objects->owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT due.at, best.runid, best.status, best.attempt"
							  " FROM cron.job,"
							  " LATERAL cron.due_times(job, $2, $3) AS due (at)"
							  " LEFT JOIN LATERAL (SELECT d.runid, d.status, d.attempt"
							  "  FROM cron.job_run_details d"
							  "  WHERE d.jobid OPERATOR(pg_catalog.=) job.jobid"
							  "  AND d.due_time OPERATOR(pg_catalog.=) due.at"
							  "  ORDER BY (d.status OPERATOR(pg_catalog.=) 'succeeded') DESC NULLS LAST,"
							  "  d.attempt DESC LIMIT 1) AS best ON true"
							  " WHERE job.jobid OPERATOR(pg_catalog.=) $1"
							  " ORDER BY due.at",
							  3, types, values, NULL, true, BACKFILL_LOOK_MAX + 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the due times of job " INT64_FORMAT, job->jobid);
	PopActiveSnapshot();
	if (SPI_processed > BACKFILL_LOOK_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the range holds more than %d due times", BACKFILL_LOOK_MAX),
				 errhint("Call cron.backfill for one part of the range after the other.")));
	*count = (int) SPI_processed;
	past = SPI_palloc(sizeof(PastDue) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		is_null;
		char	   *status;
		Datum		value;

		past[i].due_time = DatumGetTimestampTz(SPI_getbinval(row, desc, 1, &is_null));
		value = SPI_getbinval(row, desc, 2, &is_null);
		past[i].runid = is_null ? 0 : DatumGetInt64(value);
		status = SPI_getvalue(row, desc, 3);
		past[i].status = status ? strcpy(SPI_palloc(strlen(status) + 1), status) : NULL;
		value = SPI_getbinval(row, desc, 4, &is_null);
		past[i].attempt = is_null ? 0 : DatumGetInt32(value);

		/* Where successes leave no record, a due time without one may be a success. */
		if (past[i].runid == 0)
			past[i].is_missing = job->history == HISTORY_ALL;
		else
			past[i].is_missing = past[i].status == NULL ||
				strcmp(past[i].status, "failed") == 0 || strcmp(past[i].status, "skipped") == 0;
	}
	clockwork_extension_leave(&section);
	return past;
}

static void
check_number(const PastDue *past, int count)
{
	int			missing = 0;

	for (int i = 0; i < count; i++)
		missing += past[i].is_missing;
	if (missing > BACKFILL_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the backfill would ask for %d runs, more than %d", missing, BACKFILL_MAX),
				 errhint("Call cron.backfill for one part of the range after the other; "
						 "the first %d due times without a run end at %s.",
						 BACKFILL_MAX, timestamptz_to_str(past[BACKFILL_MAX - 1].due_time))));
}

/* The caller may think that what has no record has had no run. */
static void
notice_unrecorded(const JobDefinition *job, const PastDue *past, int count)
{
	int			unrecorded = 0;

	for (int i = 0; i < count; i++)
		unrecorded += past[i].runid == 0;
	if (unrecorded > 0 && job->history != HISTORY_ALL)
		ereport(NOTICE,
				(errmsg("%d due times without a record are left alone", unrecorded),
				 errdetail("Job " INT64_FORMAT " does not keep all records: they may have had their run.",
						   job->jobid),
				 errhint("To run them all the same, set the job's option \"history\" to \"all\" first.")));
}

static void
return_past(ReturnSetInfo *result, const PastDue *past, const char *action)
{
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};

	values[0] = TimestampTzGetDatum(past->due_time);
	values[1] = CStringGetTextDatum(action);
	values[2] = Int64GetDatum(past->runid);
	nulls[2] = past->runid == 0;
	values[3] = past->status ? CStringGetTextDatum(past->status) : (Datum) 0;
	nulls[3] = past->status == NULL;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static Datum
backfill(FunctionCallInfo fcinfo, const ExtensionObjects *objects, const JobDefinition *job)
{
	bool		dry_run = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	RunOrder	order;
	PastDue    *past;
	int			count;

	require_argument(fcinfo, 1, "from_time");
	require_argument(fcinfo, 2, "to_time");
	check_range(PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_TIMESTAMPTZ(2));
	order = order_of_backfill(job, text_argument(fcinfo, 3));
	if (!dry_run)
		refuse_held(job);
	InitMaterializedSRF(fcinfo, 0);
	past = list_past(objects, job, PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_TIMESTAMPTZ(2), &count);
	if (!dry_run)
		check_number(past, count);
	notice_unrecorded(job, past, count);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (past[i].is_missing && !dry_run)
		{
			past[i].runid = ask_for_run(objects, job, past[i].due_time, past[i].attempt + 1,
										"catch_up", NULL, order);
			past[i].is_missing = past[i].runid != 0;	/* else somebody else just did */
		}
		return_past((ReturnSetInfo *) fcinfo->resultinfo, &past[i], past[i].is_missing ? "run" : "leave");
	}
	if (!dry_run)
		notice_pause(objects);
	return (Datum) 0;
}

/* cron.backfill(job_id, from_time, to_time, on_overlap, dry_run) */
Datum
clockwork_backfill(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "INSERT");
	return backfill(fcinfo, &objects, find_numbered_job(fcinfo, &objects));
}

/* cron.backfill(job_name, from_time, to_time, on_overlap, dry_run) */
Datum
clockwork_backfill_named(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "INSERT");
	return backfill(fcinfo, &objects, find_named_job(fcinfo, &objects));
}

/* ---- pausing one job ---- */

static void
change_reason(const ExtensionObjects *objects, const JobDefinition *job, const char *reason)
{
	JobChange	change = {0};

	job_change_set(&change, "paused_reason", "pg_catalog.text", reason);
	if (!clockwork_catalog_change_job(objects, job, &change))
		refuse_job(job->jobid);
}

static bool
pause_job(FunctionCallInfo fcinfo, const ExtensionObjects *objects, const JobDefinition *job)
{
	char	   *reason = text_argument(fcinfo, 1);
	bool		was_paused = job->paused_reason != NULL;

	if (was_paused)
		ereport(NOTICE,
				(errmsg("job " INT64_FORMAT " is paused already", job->jobid),
				 errdetail("%s", job->paused_reason)));
	if (reason == NULL && was_paused)
		return false;
	if (reason == NULL)
		reason = psprintf("Paused by role \"%s\" at %s.", clockwork_acl_current_user(),
						  timestamptz_to_str(GetCurrentTimestamp()));
	change_reason(objects, job, reason);
	return !was_paused;
}

static bool
resume_job(const ExtensionObjects *objects, const JobDefinition *job)
{
	if (job->paused_reason == NULL)
	{
		ereport(NOTICE, (errmsg("job " INT64_FORMAT " is not paused", job->jobid)));
		return false;
	}
	change_reason(objects, job, NULL);
	return true;
}

/* cron.pause(job_id, reason) */
Datum
clockwork_pause(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "UPDATE");
	PG_RETURN_BOOL(pause_job(fcinfo, &objects, find_numbered_job(fcinfo, &objects)));
}

/* cron.pause(job_name, reason) */
Datum
clockwork_pause_named(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "UPDATE");
	PG_RETURN_BOOL(pause_job(fcinfo, &objects, find_named_job(fcinfo, &objects)));
}

/* cron.resume(job_id) */
Datum
clockwork_resume(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "UPDATE");
	PG_RETURN_BOOL(resume_job(&objects, find_numbered_job(fcinfo, &objects)));
}

/* cron.resume(job_name) */
Datum
clockwork_resume_named(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "UPDATE");
	PG_RETURN_BOOL(resume_job(&objects, find_named_job(fcinfo, &objects)));
}

/* ---- inside a run ---- */

/* The slot whose run this process executes; NULL if it is no worker. */
static RunSlot *
find_my_slot(void)
{
	ControlPanel *panel = clockwork_shmem_panel();

	for (int i = 0; i < panel->nslots; i++)
	{
		RunSlot    *slot = clockwork_shmem_slot(i);

		if (slot_state(slot) == SLOT_RUNNING && slot->pid == MyProcPid)
			return slot;
	}
	return NULL;
}

/* cron.current_run() */
Datum
clockwork_current_run(PG_FUNCTION_ARGS)
{
	RunSlot    *slot = find_my_slot();
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ExtensionObjects objects;
	ExtensionSection section;
	JobDefinition *job;
	RunLook		look;
	Datum		values[9] = {0};
	bool		nulls[9];
	const char *name;

	clockwork_extension_require(&objects);
	InitMaterializedSRF(fcinfo, 0);
	if (slot == NULL)
		return (Datum) 0;
	clockwork_extension_enter(&section, objects.owner);
	(void) clockwork_run_log_look(slot->runid, &look);
	clockwork_extension_leave(&section);
	job = clockwork_job_rows_find(&objects, slot->jobid);
	name = job ? job->name : NULL;

	values[0] = Int64GetDatum(slot->jobid);
	nulls[0] = slot->jobid == 0;
	values[1] = name ? CStringGetTextDatum(name) : (Datum) 0;
	nulls[1] = name == NULL;
	values[2] = Int64GetDatum(slot->runid);
	nulls[2] = slot->runid == 0;
	values[3] = TimestampTzGetDatum(slot->due_time);
	nulls[3] = slot->due_time == 0;
	values[4] = Int32GetDatum(slot->attempt);
	nulls[4] = false;
	values[5] = CStringGetTextDatum(slot->trigger);
	nulls[5] = false;
	values[6] = look.label ? CStringGetTextDatum(look.label) : (Datum) 0;
	nulls[6] = look.label == NULL;
	values[7] = look.requested_by ? CStringGetTextDatum(look.requested_by) : (Datum) 0;
	nulls[7] = look.requested_by == NULL;
	values[8] = TimestampTzGetDatum(slot->start_time);
	nulls[8] = slot->start_time == 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	return (Datum) 0;
}

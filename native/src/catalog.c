/*
 * Reading and changing cron.job.
 *
 * Read by id for what changed, through a cursor for everything,
 * so that memory stays small whatever the number of jobs.
 */
#include "postgres.h"

#include "compat.h"
#include "catalog.h"
#include "zone.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define FETCH_ROWS 1000

/* What cron.installation() gives: as a function of SQL it would be planned at each call. */
#define INSTALLATION \
	"(SELECT pg_catalog.md5(i.id::pg_catalog.text OPERATOR(pg_catalog.||) d.oid::pg_catalog.text)::pg_catalog.uuid" \
	" FROM cron.installation_identity AS i, pg_catalog.pg_database AS d" \
	" WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"

#define JOB_COLUMNS \
	"jobid, jobname, schedule, command, database, username, timezone, active, priority, " \
	"schedule_anchor, active_since, paused_reason, notify, " \
	"history, " \
	"owner, COALESCE(installation OPERATOR(pg_catalog.<>) " INSTALLATION ", true), " \
	"settings::pg_catalog.text, fresh_session, " \
	RULE_COLUMNS

/* What becomes of JobDefinition.rules and .is_paused, from column RULES_BEGIN on. */
#define RULES_BEGIN 19
#define RULE_COLUMNS \
	"on_overlap, max_parallel, on_missed, start_deadline, timeout, max_attempts, retry_delay, " \
	"pg_catalog.array_to_string(retry_on, ' '), jitter, starts_at, ends_at, pause_after, " \
	"paused_reason IS NOT NULL"

static char *
text_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		is_null;
	Datum		value = SPI_getbinval(row, desc, column, &is_null);

	return is_null ? NULL : TextDatumGetCString(value);
}

/* A length of time in microseconds: a month has 30 days; 0 for NULL. */
static int64
interval_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		is_null;
	Datum		value = SPI_getbinval(row, desc, column, &is_null);

	return is_null ? 0 : clockwork_interval_usec(DatumGetIntervalP(value));
}

static int
integer_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		is_null;
	Datum		value = SPI_getbinval(row, desc, column, &is_null);

	return is_null ? 0 : DatumGetInt32(value);
}

/* A bound of the due times; -infinity and infinity are none. */
static ScheduleInstant
bound_column(HeapTuple row, TupleDesc desc, int column, ScheduleInstant none)
{
	bool		is_null;
	Datum		value = SPI_getbinval(row, desc, column, &is_null);

	if (is_null || TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(value)))
		return none;
	return clockwork_zone_instant(DatumGetTimestampTz(value));
}

static PolicyOverlap
overlap_of(const char *word)
{
	if (strcmp(word, "skip") == 0)
		return POLICY_SKIP;
	if (strcmp(word, "replace") == 0)
		return POLICY_REPLACE;
	return strcmp(word, "parallel") == 0 ? POLICY_PARALLEL : POLICY_QUEUE;
}

static PolicyMissed
missed_of(const char *word)
{
	if (strcmp(word, "run_once") == 0)
		return POLICY_MISSED_ONCE;
	return strcmp(word, "run_all") == 0 ? POLICY_MISSED_ALL : POLICY_MISSED_SKIP;
}

static JobHistory
history_of(const char *word)
{
	if (strcmp(word, "failures") == 0)
		return HISTORY_FAILURES;
	return strcmp(word, "none") == 0 ? HISTORY_NONE : HISTORY_ALL;
}

static void
show_rules(HeapTuple row, TupleDesc desc, JobDefinition *job)
{
	PolicyRules *rules = palloc(sizeof(PolicyRules));
	int			column = RULES_BEGIN;
	bool		is_null;

	clockwork_policy_defaults(rules);
	job->rules = rules;
	rules->priority = job->priority;
	rules->on_overlap = overlap_of(text_column(row, desc, column++));
	rules->max_parallel = integer_column(row, desc, column++);
	rules->on_missed = missed_of(text_column(row, desc, column++));
	rules->start_deadline = interval_column(row, desc, column++);
	rules->timeout = interval_column(row, desc, column++);
	rules->max_attempts = integer_column(row, desc, column++);
	rules->retry_delay = interval_column(row, desc, column++);
	rules->retry_on = text_column(row, desc, column++);
	rules->jitter = interval_column(row, desc, column++);
	rules->starts_at = bound_column(row, desc, column++, INT64_MIN);
	rules->ends_at = bound_column(row, desc, column++, POLICY_NEVER);
	rules->pause_after = integer_column(row, desc, column++);
	job->is_paused = DatumGetBool(SPI_getbinval(row, desc, column++, &is_null));
}

static void
show_row(HeapTuple row, TupleDesc desc, JobVisitor visit, void *arg)
{
	JobDefinition job;
	bool		is_null;

	memset(&job, 0, sizeof(job));
	job.jobid = DatumGetInt64(SPI_getbinval(row, desc, 1, &is_null));
	job.name = text_column(row, desc, 2);
	job.schedule = text_column(row, desc, 3);
	job.command = text_column(row, desc, 4);
	job.database = text_column(row, desc, 5);
	job.username = text_column(row, desc, 6);
	job.timezone = text_column(row, desc, 7);
	job.active = DatumGetBool(SPI_getbinval(row, desc, 8, &is_null));
	job.priority = DatumGetInt32(SPI_getbinval(row, desc, 9, &is_null));
	job.anchor = DatumGetTimestampTz(SPI_getbinval(row, desc, 10, &is_null));
	job.active_since = DatumGetTimestampTz(SPI_getbinval(row, desc, 11, &is_null));
	job.paused_reason = text_column(row, desc, 12);
	job.notify = text_column(row, desc, 13);
	job.history = history_of(text_column(row, desc, 14));
	job.owner = DatumGetObjectId(SPI_getbinval(row, desc, 15, &is_null));
	if (is_null)
		job.owner = InvalidOid;
	job.held = DatumGetBool(SPI_getbinval(row, desc, 16, &is_null));
	job.settings = text_column(row, desc, 17);
	job.fresh_session = DatumGetBool(SPI_getbinval(row, desc, 18, &is_null));
	show_rules(row, desc, &job);
	visit(&job, arg);
}

static void
show_rows(JobVisitor visit, void *arg)
{
	SPITupleTable *table = SPI_tuptable;
	uint64		count = SPI_processed;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_clockwork job row",
												  ALLOCSET_DEFAULT_SIZES);

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext caller = MemoryContextSwitchTo(scratch);

		show_row(table->vals[i], table->tupdesc, visit, arg);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
	SPI_freetuptable(table);
}

static void
visit_some(const int64 *jobids, int count, JobVisitor visit, void *arg)
{
	static SPIPlanPtr plan = NULL;
	Datum	   *elements = palloc(sizeof(Datum) * count);
	Datum		values[1];

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(jobids[i]);
	values[0] = PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	if (plan == NULL)
	{
		Oid			types[1] = {INT8ARRAYOID};
		SPIPlanPtr	prepared = SPI_prepare("SELECT " JOB_COLUMNS " FROM cron.job"
										   " WHERE jobid OPERATOR(pg_catalog.=) ANY ($1)",
										   1, types);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not prepare the query on cron.job: %s",
				 SPI_result_code_string(SPI_result));
		plan = prepared;
	}
	if (SPI_execute_plan(plan, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read cron.job");
	show_rows(visit, arg);
}

static void
visit_all(JobVisitor visit, void *arg)
{
	Portal		cursor = SPI_cursor_open_with_args(NULL, "SELECT " JOB_COLUMNS " FROM cron.job",
												   0, NULL, NULL, NULL, true,
												   CURSOR_OPT_NO_SCROLL);

	for (;;)
	{
		SPI_cursor_fetch(cursor, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		show_rows(visit, arg);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_cursor_close(cursor);
}

void
clockwork_catalog_visit_jobs(const ExtensionObjects *objects,
							 const int64 *jobids, int count,
							 JobVisitor visit, void *arg)
{
	ExtensionSection section;

	clockwork_extension_enter(&section, objects->owner);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (count < 0)
		visit_all(visit, arg);
	else
		visit_some(jobids, count, visit, arg);
	PopActiveSnapshot();
	clockwork_extension_leave(&section);
}

/* For clockwork_catalog_find_job: keep a copy of the one row. */
typedef struct FoundJob
{
	MemoryContext context;
	JobDefinition *job;
} FoundJob;

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

static void
keep_job(const JobDefinition *shown, void *arg)
{
	FoundJob   *found = arg;
	MemoryContext caller = MemoryContextSwitchTo(found->context);
	PolicyRules *rules = palloc(sizeof(PolicyRules));

	*rules = *shown->rules;
	rules->retry_on = copy_text(rules->retry_on);
	found->job = palloc(sizeof(JobDefinition));
	*found->job = *shown;
	found->job->name = copy_text(shown->name);
	found->job->schedule = copy_text(shown->schedule);
	found->job->command = copy_text(shown->command);
	found->job->database = copy_text(shown->database);
	found->job->username = copy_text(shown->username);
	found->job->timezone = copy_text(shown->timezone);
	found->job->paused_reason = copy_text(shown->paused_reason);
	found->job->notify = copy_text(shown->notify);
	found->job->settings = copy_text(shown->settings);
	found->job->rules = rules;
	MemoryContextSwitchTo(caller);
}

JobDefinition *
clockwork_catalog_find_job(const ExtensionObjects *objects, int64 jobid)
{
	FoundJob	found = {CurrentMemoryContext, NULL};

	clockwork_catalog_visit_jobs(objects, &jobid, 1, keep_job, &found);
	return found.job;
}

/* Run one statement as the tables' owner; returns the first column of the
 * first row if it gives one, else 0. */
static int64
execute_as_owner(const ExtensionObjects *objects, const char *sql, int expected,
				 int nparameters, Oid *types, Datum *values, const char *nulls)
{
	ExtensionSection section;
	int64		result = 0;
	int			code;

	clockwork_extension_enter(&section, objects->owner);
	code = SPI_execute_with_args(sql, nparameters, types, values, nulls, false, 0);
	if (code != expected)
		elog(ERROR, "unexpected result of a statement on cron.job: %s",
			 SPI_result_code_string(code));
	if (SPI_tuptable && SPI_processed > 0)
	{
		bool		is_null;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										  1, &is_null);

		result = is_null ? 0 : DatumGetInt64(value);
	}
	clockwork_extension_leave(&section);
	return result;
}

int64
clockwork_catalog_find_named(const ExtensionObjects *objects,
							 const char *name, Oid owner)
{
	Oid			types[2] = {TEXTOID, OIDOID};
	Datum		values[2] = {CStringGetTextDatum(name), ObjectIdGetDatum(owner)};

	return execute_as_owner(objects,
							"SELECT jobid FROM cron.job"
							" WHERE jobname OPERATOR(pg_catalog.=) $1"
							" AND owner OPERATOR(pg_catalog.=) $2",
							SPI_OK_SELECT, 2, types, values, NULL);
}

/*
 * A role that was renamed has a job whose row still says its former name, and
 * that name and jobname are wanted by another role now: let the row say what
 * its role is called.
 */
static void
release_former_name(const ExtensionObjects *objects, const char *jobname, const char *username)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(jobname), CStringGetTextDatum(username)};

	(void) execute_as_owner(objects,
							"UPDATE cron.job SET username = role.rolname::pg_catalog.text"
							" FROM pg_catalog.pg_roles AS role"
							" WHERE role.oid OPERATOR(pg_catalog.=) job.owner"
							" AND job.jobname OPERATOR(pg_catalog.=) $1"
							" AND job.username OPERATOR(pg_catalog.=) $2",
							SPI_OK_UPDATE, 2, types, values, NULL);
}

int
clockwork_catalog_list_named(const ExtensionObjects *objects, const char *name,
							 int64 *jobids, int most)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(name)};
	ExtensionSection section;
	int			count;

	clockwork_extension_enter(&section, objects->owner);
	if (SPI_execute_with_args("SELECT jobid FROM cron.job WHERE jobname OPERATOR(pg_catalog.=) $1"
							  " ORDER BY jobid", 1, types, values, NULL, true, most) != SPI_OK_SELECT)
		elog(ERROR, "could not read cron.job");
	count = (int) SPI_processed;
	for (int i = 0; i < count; i++)
	{
		bool		is_null;

		jobids[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &is_null));
	}
	clockwork_extension_leave(&section);
	return count;
}

int64
clockwork_catalog_put_job(const ExtensionObjects *objects,
						  const JobDefinition *job, const char *nodename)
{
	/*
	 * A job of that name is the role's own, or was left behind by a role that
	 * is gone: then it becomes this one's.  It is never that of another role
	 * that is there.
	 */
	static const char *const sql =
		"INSERT INTO cron.job AS job"
		" (schedule, command, nodename, nodeport, database, username, active, jobname)"
		" VALUES ($1, $2, $3, pg_catalog.current_setting('port')::pg_catalog.int4,"
		" $4, $5, $6, $7)"
		" ON CONFLICT ON CONSTRAINT jobname_username_uniq DO UPDATE SET"
		" schedule = EXCLUDED.schedule, command = EXCLUDED.command,"
		" database = EXCLUDED.database, username = EXCLUDED.username,"
		" installation = EXCLUDED.installation"
		" WHERE job.owner OPERATOR(pg_catalog.=) cron.role_oid($5)"
		" OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS role"
		"  WHERE role.oid OPERATOR(pg_catalog.=) job.owner)"
		" RETURNING jobid";
	Oid			types[7] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, TEXTOID};
	Datum		values[7];
	char		nulls[] = "       ";
	int64		jobid;

	values[0] = CStringGetTextDatum(job->schedule);
	values[1] = CStringGetTextDatum(job->command);
	values[2] = CStringGetTextDatum(nodename);
	values[3] = CStringGetTextDatum(job->database);
	values[4] = CStringGetTextDatum(job->username);
	values[5] = BoolGetDatum(job->active);
	values[6] = job->name ? CStringGetTextDatum(job->name) : (Datum) 0;
	if (job->name == NULL)
		nulls[6] = 'n';

	jobid = execute_as_owner(objects, sql, SPI_OK_INSERT_RETURNING, 7, types, values, nulls);
	if (jobid == 0)
	{
		release_former_name(objects, job->name, job->username);
		jobid = execute_as_owner(objects, sql, SPI_OK_INSERT_RETURNING, 7, types, values, nulls);
	}
	if (jobid == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("job name \"%s\" is taken by a job of another role", job->name)));
	return jobid;
}

bool
clockwork_catalog_change_job(const ExtensionObjects *objects,
							 const JobDefinition *job, const JobChange *change)
{
	StringInfoData sql;
	Oid			types[JOB_CHANGE_MAX + 2];
	Datum		values[JOB_CHANGE_MAX + 2];
	char		nulls[JOB_CHANGE_MAX + 2];

	initStringInfo(&sql);
	appendStringInfoString(&sql, "UPDATE cron.job SET ");
	types[0] = INT8OID;
	values[0] = Int64GetDatum(job->jobid);
	nulls[0] = ' ';
	for (int i = 0; i < change->count; i++)
	{
		const JobColumnChange *set = &change->columns[i];

		types[i + 1] = TEXTOID;
		values[i + 1] = set->value ? CStringGetTextDatum(set->value) : (Datum) 0;
		nulls[i + 1] = set->value ? ' ' : 'n';
		if (set->reset)
			appendStringInfo(&sql, "%s%s = DEFAULT", i ? ", " : "", set->column);
		else
			appendStringInfo(&sql, "%s%s = $%d::%s", i ? ", " : "", set->column,
							 i + 2, set->type);
	}
	types[change->count + 1] = OIDOID;
	values[change->count + 1] = ObjectIdGetDatum(job->owner);
	nulls[change->count + 1] = ' ';
	appendStringInfo(&sql, " WHERE jobid OPERATOR(pg_catalog.=) $1"
					 " AND COALESCE(owner, 0::pg_catalog.oid) OPERATOR(pg_catalog.=) $%d"
					 " RETURNING 1::pg_catalog.int8",
					 change->count + 2);
	return execute_as_owner(objects, sql.data, SPI_OK_UPDATE_RETURNING,
							change->count + 2, types, values, nulls) == 1;
}

bool
clockwork_catalog_delete_job(const ExtensionObjects *objects, int64 jobid, Oid owner)
{
	Oid			types[2] = {INT8OID, OIDOID};
	Datum		values[2] = {Int64GetDatum(jobid), ObjectIdGetDatum(owner)};

	return execute_as_owner(objects,
							"DELETE FROM cron.job WHERE jobid OPERATOR(pg_catalog.=) $1"
							" AND COALESCE(owner, 0::pg_catalog.oid) OPERATOR(pg_catalog.=) $2"
							" RETURNING 1::pg_catalog.int8",
							SPI_OK_DELETE_RETURNING, 2, types, values, NULL) == 1;
}

void
clockwork_catalog_deactivate_job(int64 jobid)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(jobid)};

	int			result;

	PushActiveSnapshot(GetTransactionSnapshot());
	result = SPI_execute_with_args("UPDATE cron.job SET active = false"
								   " WHERE jobid OPERATOR(pg_catalog.=) $1",
								   1, types, values, NULL, false, 0);
	PopActiveSnapshot();
	if (result != SPI_OK_UPDATE)
		elog(ERROR, "could not make job " INT64_FORMAT " inactive", jobid);
}

int64
clockwork_catalog_adopt(const ExtensionObjects *objects, int64 jobid, bool any, Oid adopter)
{
	Oid			types[3] = {INT8OID, BOOLOID, OIDOID};
	Datum		values[3] = {Int64GetDatum(jobid), BoolGetDatum(any), ObjectIdGetDatum(adopter)};

	if (any)
		(void) execute_as_owner(objects,
								"INSERT INTO cron.installation_identity DEFAULT VALUES ON CONFLICT DO NOTHING",
								SPI_OK_INSERT, 0, NULL, NULL, NULL);

	/*
	 * Setting the username, be it to what it was, pins the job to the role of
	 * that name.  Without `any`, that must be a role of the adopter's just as
	 * the one it is pinned to, which may be a number from elsewhere.
	 */
	return execute_as_owner(objects,
							"WITH adopted AS ("
							"UPDATE cron.job AS job SET installation = cron.installation(),"
							" username = job.username"
							" WHERE ($1 OPERATOR(pg_catalog.=) 0 OR job.jobid OPERATOR(pg_catalog.=) $1)"
							" AND ($2 OR (pg_catalog.pg_has_role($3, job.owner, 'USAGE')"
							"  AND pg_catalog.pg_has_role($3, cron.role_oid(job.username), 'USAGE')))"
							" AND (job.installation OPERATOR(pg_catalog.<>) cron.installation()"
							"  OR ($2 AND cron.role_oid(job.username) IS NOT NULL"
							"   AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS role"
							"    WHERE role.oid OPERATOR(pg_catalog.=) job.owner)))"
							" RETURNING 1)"
							" SELECT pg_catalog.count(*) FROM adopted",
							SPI_OK_SELECT, 3, types, values, NULL);
}

bool
clockwork_catalog_rename_owner(int64 jobid, Oid owner, const char *username)
{
	Oid			types[3] = {INT8OID, OIDOID, TEXTOID};
	Datum		values[3] = {Int64GetDatum(jobid), ObjectIdGetDatum(owner),
	CStringGetTextDatum(username)};
	int			result;
	bool		is_null;

	PushActiveSnapshot(GetTransactionSnapshot());
	result = SPI_execute_with_args("UPDATE cron.job SET username = $3"
								   " WHERE jobid OPERATOR(pg_catalog.=) $1"
								   " AND owner OPERATOR(pg_catalog.=) $2 RETURNING owner",
								   3, types, values, NULL, false, 0);
	PopActiveSnapshot();
	if (result != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not update the username of job " INT64_FORMAT, jobid);

	/* The name may have passed to another role since it was looked up. */
	return SPI_processed == 0 ||
		DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									   1, &is_null)) == owner;
}

void
clockwork_catalog_pause_job(int64 jobid, const char *reason)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(jobid), CStringGetTextDatum(reason)};
	int			result;

	PushActiveSnapshot(GetTransactionSnapshot());
	result = SPI_execute_with_args("UPDATE cron.job SET paused_reason = $2"
								   " WHERE jobid OPERATOR(pg_catalog.=) $1"
								   " AND paused_reason IS NULL",
								   2, types, values, NULL, false, 0);
	PopActiveSnapshot();
	if (result != SPI_OK_UPDATE)
		elog(ERROR, "could not pause job " INT64_FORMAT, jobid);
}

void
clockwork_catalog_read_pause(const ExtensionObjects *objects, PauseState *pause)
{
	ExtensionSection section;
	MemoryContext caller = CurrentMemoryContext;

	memset(pause, 0, sizeof(*pause));
	clockwork_extension_enter(&section, objects->owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute("SELECT reason, changed_at FROM cron.pause_state", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read cron.pause_state");
	if (SPI_processed > 0)
	{
		char	   *reason = text_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		bool		is_null;

		pause->reason = reason ? MemoryContextStrdup(caller, reason) : NULL;
		pause->changed_at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
															  SPI_tuptable->tupdesc, 2, &is_null));
	}
	PopActiveSnapshot();
	clockwork_extension_leave(&section);
}

void
clockwork_catalog_pause(const ExtensionObjects *objects, const char *reason, const char *username)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(reason), CStringGetTextDatum(username)};

	(void) execute_as_owner(objects,
							"INSERT INTO cron.pause_state (reason, changed_by) VALUES ($1, $2)"
							" ON CONFLICT ON CONSTRAINT pause_state_pkey DO UPDATE SET"
							" reason = EXCLUDED.reason, changed_by = EXCLUDED.changed_by,"
							" changed_at = EXCLUDED.changed_at",
							SPI_OK_INSERT, 2, types, values, NULL);
}

bool
clockwork_catalog_resume(const ExtensionObjects *objects, const char *username)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(username)};

	return execute_as_owner(objects,
							"UPDATE cron.pause_state SET reason = NULL, changed_by = $1,"
							" changed_at = pg_catalog.clock_timestamp()"
							" WHERE reason IS NOT NULL RETURNING 1::pg_catalog.int8",
							SPI_OK_UPDATE_RETURNING, 1, types, values, NULL) == 1;
}

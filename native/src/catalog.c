/*
 * Changing cron.job, and the state of everything beside it.  Its rows are read
 * in job_rows.c.
 */
#include "postgres.h"

#include "compat.h"
#include "catalog.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

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
		bool		is_null;
		Datum		reason = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);

		if (!is_null)
			pause->reason = MemoryContextStrdup(caller, TextDatumGetCString(reason));
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

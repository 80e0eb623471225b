/*
 * Telling the launcher, at commit, which jobs changed, and refusing @after
 * schedules that go round in a circle, whoever wrote them.
 *
 * The row trigger on cron.job remembers ids; the commit callback hands them
 * to the launcher and wakes it, so that it never looks before the rows are
 * visible, and a rollback wakes nobody.  Ids of rolled-back subtransactions
 * are handed over too: looking at an unchanged row costs little and is right.
 *
 * A prepared transaction commits in another session, where no callback of
 * ours knows of it.  There we invalidate the relation cache instead, which
 * PostgreSQL keeps with the prepared transaction and sends when it commits;
 * the launcher then reads all jobs, within half a minute.
 */
#include "postgres.h"

#include "compat.h"
#include "acl.h"
#include "after_check.h"
#include "core/policy.h"
#include "core/schedule.h"
#include "extension.h"
#include "run_settings.h"
#include "schedule_check.h"
#include "shmem.h"
#include "zone.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(clockwork_job_cache_invalidate);
PG_FUNCTION_INFO_V1(clockwork_job_changed);
PG_FUNCTION_INFO_V1(clockwork_job_before_update);
PG_FUNCTION_INFO_V1(clockwork_job_owner);
PG_FUNCTION_INFO_V1(clockwork_job_check);

/* What the current transaction changed. */
static int64 changed[CLOCKWORK_MAX_CHANGES];
static int	nchanged = 0;
static bool all_changed = false;
static Oid	changed_table = InvalidOid;

static void
forget_changes(void)
{
	nchanged = 0;
	all_changed = false;
	changed_table = InvalidOid;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (nchanged == 0 && !all_changed)
	{
		changed_table = InvalidOid;
		return;
	}
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			clockwork_shmem_note_changes(changed, all_changed ? -1 : nchanged);
			forget_changes();
			break;
		case XACT_EVENT_PRE_PREPARE:
			CacheInvalidateRelcacheByRelid(changed_table);
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			forget_changes();
			break;
		default:
			break;
	}
}

static TriggerData *
trigger_data(FunctionCallInfo fcinfo)
{
	static bool registered = false;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("must be called as trigger")));
	if (!registered)
	{
		RegisterXactCallback(at_transaction_event, NULL);
		registered = true;
	}
	return (TriggerData *) fcinfo->context;
}

/*
 * Is this trigger on our own cron.job?  Anybody may put the statement trigger
 * on a table of theirs, and must not keep the launcher busy with it.  A yes is
 * remembered for the transaction.
 */
static bool
is_ours(Relation relation)
{
	ExtensionObjects objects;

	if (RelationGetRelid(relation) == changed_table)
		return true;
	if (!clockwork_extension_find(&objects) || RelationGetRelid(relation) != objects.job)
		return false;
	changed_table = objects.job;
	return true;
}

static void
remember(HeapTuple row, TupleDesc desc)
{
	int			column = SPI_fnumber(desc, "jobid");
	bool		is_null;
	Datum		jobid;

	if (column <= 0 || SPI_gettypeid(desc, column) != INT8OID)
		return;
	jobid = SPI_getbinval(row, desc, column, &is_null);
	if (is_null)
		return;
	if (nchanged < CLOCKWORK_MAX_CHANGES)
		changed[nchanged++] = DatumGetInt64(jobid);
	else
		all_changed = true;
}

static bool
same_column(TriggerData *trigger, TupleDesc desc, const char *name)
{
	char	   *before = SPI_getvalue(trigger->tg_trigtuple, desc, SPI_fnumber(desc, name));
	char	   *after = SPI_getvalue(trigger->tg_newtuple, desc, SPI_fnumber(desc, name));

	if (before == NULL || after == NULL)
		return before == after;
	return strcmp(before, after) == 0;
}

/*
 * A row with an @after schedule, however it was written: refuse what cannot be
 * read and what would wait for itself.  The other rows of the statement are
 * there by now.
 */
static void
check_after(TriggerData *trigger, TupleDesc desc)
{
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	HeapTuple	row = is_update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	char	   *schedule;
	char	   *username;
	Schedule	parsed;
	ScheduleReport report;
	ExtensionObjects objects;

	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		return;
	schedule = SPI_getvalue(row, desc, SPI_fnumber(desc, "schedule"));
	username = SPI_getvalue(row, desc, SPI_fnumber(desc, "username"));
	if (schedule == NULL || username == NULL || !clockwork_after_is_meant(schedule))
		return;
	/* A role that is renamed keeps its jobs, one row after the other. */
	if (is_update && same_column(trigger, desc, "schedule") &&
		same_column(trigger, desc, "jobname") && same_column(trigger, desc, "owner"))
		return;
	clockwork_schedule_check(schedule, NULL, NULL, &parsed, &report);
	if (clockwork_extension_find(&objects))
		clockwork_after_check(&objects, schedule,
							  SPI_getvalue(row, desc, SPI_fnumber(desc, "jobname")),
							  username, true);
}

/* For each row. */
Datum
clockwork_job_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("must be fired for each row")));
	if (!is_ours(trigger->tg_relation))
		return PointerGetDatum(NULL);
	check_after(trigger, desc);
	remember(trigger->tg_trigtuple, desc);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		remember(trigger->tg_newtuple, desc);
	return PointerGetDatum(NULL);
}

/*
 * For each statement, as pg_cron has it.  The rows are told one by one; only
 * TRUNCATE has none to tell.
 */
Datum
clockwork_job_cache_invalidate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);

	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event) && is_ours(trigger->tg_relation))
		all_changed = true;
	return PointerGetDatum(NULL);
}

static bool
is_null_column(HeapTuple row, TupleDesc desc, const char *name)
{
	bool		is_null;

	(void) SPI_getbinval(row, desc, SPI_fnumber(desc, name), &is_null);
	return is_null;
}

static Datum
column(HeapTuple row, TupleDesc desc, const char *name)
{
	bool		is_null;

	return SPI_getbinval(row, desc, SPI_fnumber(desc, name), &is_null);
}

/* Options that would have no effect, or leave no due time. */
static void
check_bounds(HeapTuple row, TupleDesc desc)
{
	const char *overlap = SPI_getvalue(row, desc, SPI_fnumber(desc, "on_overlap"));

	/* What is wrong by itself is left to the constraints of the table. */
	if (!is_null_column(row, desc, "max_parallel") &&
		DatumGetInt32(column(row, desc, "max_parallel")) >= 1 &&
		(overlap == NULL || strcmp(overlap, "parallel") != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"max_parallel\" has no effect without \"on_overlap\": \"parallel\""),
				 errhint("Set both, or neither.")));
	if (!is_null_column(row, desc, "starts_at") && !is_null_column(row, desc, "ends_at") &&
		DatumGetTimestampTz(column(row, desc, "starts_at")) >
		DatumGetTimestampTz(column(row, desc, "ends_at")))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"ends_at\" must not be before \"starts_at\""),
				 errdetail("The job would have no due time.")));
	if (!is_null_column(row, desc, "jitter") &&
		clockwork_interval_usec(DatumGetIntervalP(column(row, desc, "jitter"))) > USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"jitter\" is out of range"),
				 errdetail("\"%s\" is more than a day.",
						   SPI_getvalue(row, desc, SPI_fnumber(desc, "jitter")))));
}

static void
check_retries(HeapTuple row, TupleDesc desc)
{
	const char *written = SPI_getvalue(row, desc, SPI_fnumber(desc, "schedule"));
	bool		retries = DatumGetInt32(column(row, desc, "max_attempts")) > 1;
	Schedule	schedule;
	ScheduleReport report;
	Datum	   *codes;
	bool	   *nulls;
	int			count;

	if (retries && written && clockwork_schedule_parse(written, strlen(written), NULL, 0, &schedule, &report) &&
		schedule.kind == SCHEDULE_REBOOT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"max_attempts\" cannot be more than 1 for schedule \"%s\"", written),
				 errdetail("A run that belongs to a start of the server is not tried again.")));
	if (is_null_column(row, desc, "retry_on"))
		return;
	deconstruct_array(DatumGetArrayTypeP(column(row, desc, "retry_on")), TEXTOID, -1, false,
					  TYPALIGN_INT, &codes, &nulls, &count);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"retry_on\" must not be empty"),
				 errhint("Use null for any error, or \"max_attempts\": 1 for no retries.")));
	for (int i = 0; i < count; i++)
	{
		char	   *code = nulls[i] ? pstrdup("") : TextDatumGetCString(codes[i]);

		if (!clockwork_policy_is_sqlstate(code))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" in option \"retry_on\" is no SQLSTATE of an error", code),
					 errhint("Write SQLSTATEs such as \"40001\", or their first two characters for a whole class.")));
	}
}

/* The one due time of an @at schedule must be within the bounds. */
static void
check_only_due_time(HeapTuple row, TupleDesc desc)
{
	const char *written = SPI_getvalue(row, desc, SPI_fnumber(desc, "schedule"));
	pg_tz	   *found = clockwork_zone_find(SPI_getvalue(row, desc, SPI_fnumber(desc, "timezone")));
	ScheduleZone zone = clockwork_zone_callbacks(found);
	Schedule	schedule;
	ScheduleReport report;
	ScheduleInstant instant;
	TimestampTz due;
	bool		too_early;

	if (written == NULL || found == NULL ||
		!clockwork_schedule_parse(written, strlen(written), NULL, 0, &schedule, &report) ||
		schedule.kind != SCHEDULE_AT)
		return;
	instant = clockwork_schedule_next(&schedule, &zone, false, 0, -1);
	if (instant == SCHEDULE_NEVER)
		return;
	due = clockwork_zone_timestamp(instant);
	too_early = !is_null_column(row, desc, "starts_at") &&
		due < DatumGetTimestampTz(column(row, desc, "starts_at"));
	if (too_early || (!is_null_column(row, desc, "ends_at") &&
					  due > DatumGetTimestampTz(column(row, desc, "ends_at"))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schedule \"%s\" is %s option \"%s\"", written,
						too_early ? "before" : "after", too_early ? "starts_at" : "ends_at"),
				 errdetail("The job would have no due time.")));
}

/*
 * What depends on the server and not on the row alone is checked where somebody
 * changes it: what is inserted may come from a dump, what a replica applies was
 * checked elsewhere, and our own functions have checked already.
 */
static void
check_change(TriggerData *trigger, TupleDesc desc)
{
	HeapTuple	row = trigger->tg_newtuple;
	char	   *settings = SPI_getvalue(row, desc, SPI_fnumber(desc, "settings"));
	char	   *username = SPI_getvalue(row, desc, SPI_fnumber(desc, "username"));

	if (InSecurityRestrictedOperation() || SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		return;
	if (!same_column(trigger, desc, "timezone"))
		(void) clockwork_timezone_check(SPI_getvalue(row, desc, SPI_fnumber(desc, "timezone")));
	if (settings && username &&
		!(same_column(trigger, desc, "settings") && same_column(trigger, desc, "username")))
		clockwork_run_settings_check(settings, username);
}

/* For each row, before an insert or update: what cannot work is refused. */
Datum
clockwork_job_check(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	HeapTuple	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : trigger->tg_trigtuple;

	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("must be fired before an insert or update of each row")));
	if (is_ours(trigger->tg_relation))
	{
		check_bounds(row, desc);
		check_retries(row, desc);
		check_only_due_time(row, desc);
		if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
			check_change(trigger, desc);
	}
	return PointerGetDatum(row);
}

/*
 * For each row, before an update: a new schedule begins a new series, and what
 * fell due before a job was made active, resumed or taken over was not missed.
 */
Datum
clockwork_job_before_update(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());
	Datum		values[2] = {now, now};
	bool		nulls[2] = {false, false};
	int			columns[2];
	int			ncolumns = 0;

	if (!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("must be fired before an update of each row")));
	if (!is_ours(trigger->tg_relation))
		return PointerGetDatum(trigger->tg_newtuple);
	if (!same_column(trigger, desc, "schedule"))
	{
		columns[ncolumns++] = SPI_fnumber(desc, "schedule_anchor");
		columns[ncolumns++] = SPI_fnumber(desc, "active_since");
	}
	else if (!same_column(trigger, desc, "active") ||
			 !same_column(trigger, desc, "installation") ||
			 is_null_column(trigger->tg_trigtuple, desc, "paused_reason") !=
			 is_null_column(trigger->tg_newtuple, desc, "paused_reason"))
		columns[ncolumns++] = SPI_fnumber(desc, "active_since");
	if (ncolumns == 0)
		return PointerGetDatum(trigger->tg_newtuple);
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_newtuple, desc, ncolumns,
													 columns, values, nulls));
}

/* Does the statement set this column, be it to what it was? */
static bool
is_set(TriggerData *trigger, int column)
{
	return TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		bms_is_member(column - FirstLowInvalidHeapAttributeNumber, trigger->tg_updatedcols);
}

/*
 * For each row, before it is inserted or updated: `owner` is the role that
 * username named when it was last set, whatever the statement says.
 */
Datum
clockwork_job_owner(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	HeapTuple	row = is_update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	int			column;
	int			owner_column;
	Datum		owner;
	bool		is_null;

	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("must be fired before an insert or update of each row")));
	if (!is_ours(trigger->tg_relation))
		return PointerGetDatum(row);

	column = SPI_fnumber(desc, "username");
	owner_column = SPI_fnumber(desc, "owner");
	if (is_set(trigger, column) || !same_column(trigger, desc, "username"))
	{
		char	   *username = SPI_getvalue(row, desc, column);
		Oid			role = username ? clockwork_acl_find_role(username) : InvalidOid;

		owner = ObjectIdGetDatum(role);
		is_null = !OidIsValid(role);
	}
	else
		owner = SPI_getbinval(trigger->tg_trigtuple, desc, owner_column, &is_null);
	return PointerGetDatum(heap_modify_tuple_by_cols(row, desc, 1, &owner_column, &owner, &is_null));
}

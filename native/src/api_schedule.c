/*
 * The SQL functions about schedules: when is it due?
 *
 * They change nothing and work on a standby too.  cron.next_runs and
 * cron.explain look at a schedule alone and refuse a wrong one;
 * cron.due_times looks at a row of cron.job and gives no rows for one that
 * cannot run, so that a query over all jobs is not spoilt by one of them.
 */
#include "postgres.h"

#include "compat.h"
#include "core/policy.h"
#include "core/schedule.h"
#include "guc.h"
#include "schedule_check.h"
#include "zone.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(clockwork_next_runs);
PG_FUNCTION_INFO_V1(clockwork_explain);
PG_FUNCTION_INFO_V1(clockwork_due_times);
PG_FUNCTION_INFO_V1(clockwork_start_time);

/* The most due times cron.explain lists. */
#define EXPLAIN_MAX 100

/* A walk along the due times of one schedule. */
typedef struct Walk
{
	Schedule	schedule;
	pg_tz	   *zone;
	ScheduleInstant anchor;
	ScheduleInstant at;
	ScheduleInstant until;		/* included */
	PolicyRules rules;			/* of a job: its bounds and its jitter */
	int64		jobid;
	int64		left;			/* how many more */
	bool		over;
} Walk;

static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static void
refuse_null(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s can not be NULL", name)));
}

static ScheduleInstant
finite_instant(TimestampTz time, const char *name)
{
	if (TIMESTAMP_NOT_FINITE(time))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", name)));
	return clockwork_zone_instant(time);
}

/* The next due time of a walk; false when it is over. */
static bool
step(Walk *walk, TimestampTz *due)
{
	ScheduleZone zone = clockwork_zone_callbacks(walk->zone);

	if (walk->over || walk->left <= 0)
		return false;
	CHECK_FOR_INTERRUPTS();
	walk->at = clockwork_schedule_next(&walk->schedule, &zone, cron_match_dom_and_dow,
									   walk->anchor,
									   clockwork_policy_look_after(&walk->rules, walk->at));
	if (walk->at == SCHEDULE_NEVER || walk->at > walk->until ||
		!clockwork_policy_in_bounds(&walk->rules, walk->at))
		return false;
	walk->left--;
	*due = clockwork_zone_timestamp(walk->at);
	return true;
}

static Datum
return_walk(FunctionCallInfo fcinfo)
{
	FuncCallContext *call = SRF_PERCALL_SETUP();
	TimestampTz due;

	if (step(call->user_fctx, &due))
		SRF_RETURN_NEXT(call, TimestampTzGetDatum(due));
	SRF_RETURN_DONE(call);
}

/* cron.next_runs(schedule, timezone, from_time, n) */
Datum
clockwork_next_runs(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
	{
		FuncCallContext *call = SRF_FIRSTCALL_INIT();
		MemoryContext caller = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		Walk	   *walk = palloc0(sizeof(Walk));
		ScheduleReport report;

		clockwork_policy_defaults(&walk->rules);
		refuse_null(fcinfo, 0, "schedule");
		refuse_null(fcinfo, 2, "from_time");
		refuse_null(fcinfo, 3, "n");
		clockwork_schedule_check(text_argument(fcinfo, 0), NULL, NULL,
								 &walk->schedule, &report);
		walk->zone = clockwork_timezone_check(text_argument(fcinfo, 1));
		walk->at = finite_instant(PG_GETARG_TIMESTAMPTZ(2), "from_time");
		walk->anchor = walk->at;
		walk->until = SCHEDULE_NEVER;
		walk->left = PG_GETARG_INT32(3);
		if (walk->left < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("n must not be negative")));
		call->user_fctx = walk;
		MemoryContextSwitchTo(caller);
	}
	return return_walk(fcinfo);
}

/* The lines of an explanation still to be returned. */
typedef struct Lines
{
	char	   *next;
} Lines;

static char *
explain(FunctionCallInfo fcinfo)
{
	Schedule	schedule;
	ScheduleReport report;
	ScheduleZone zone;
	pg_tz	   *found;
	ScheduleInstant from;
	int			count;
	Size		size;
	char	   *source;
	char	   *text;

	refuse_null(fcinfo, 0, "schedule");
	refuse_null(fcinfo, 2, "from_time");
	refuse_null(fcinfo, 3, "n");
	source = text_argument(fcinfo, 0);
	clockwork_schedule_check(source, text_argument(fcinfo, 4), NULL, &schedule, &report);
	found = clockwork_timezone_check(text_argument(fcinfo, 1));
	from = finite_instant(PG_GETARG_TIMESTAMPTZ(2), "from_time");
	count = PG_GETARG_INT32(3);
	if (count < 0 || count > EXPLAIN_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("n is out of range"),
				 errdetail("%d is outside the range 0 to %d.", count, EXPLAIN_MAX)));

	zone = clockwork_zone_callbacks(found);
	size = 4096 + 4 * strlen(source) + 80 * (Size) count;
	text = palloc(size);
	(void) clockwork_schedule_explain(&schedule, source, strlen(source),
									  &zone, pg_get_timezone_name(found),
									  cron_match_dom_and_dow, from, from, count,
									  text, size);
	return text;
}

/* cron.explain(schedule, timezone, from_time, n, job_name) */
Datum
clockwork_explain(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	Lines	   *lines;
	char	   *line;
	char	   *end;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext caller;

		call = SRF_FIRSTCALL_INIT();
		caller = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		lines = palloc(sizeof(Lines));
		lines->next = explain(fcinfo);
		call->user_fctx = lines;
		MemoryContextSwitchTo(caller);
	}
	call = SRF_PERCALL_SETUP();
	lines = call->user_fctx;
	line = lines->next;
	if (*line == '\0')
		SRF_RETURN_DONE(call);
	end = strchr(line, '\n');
	if (end == NULL)
		end = line + strlen(line);
	lines->next = *end ? end + 1 : end;
	SRF_RETURN_NEXT(call, PointerGetDatum(cstring_to_text_with_len(line, end - line)));
}

static char *
text_attribute(HeapTupleHeader row, const char *name)
{
	bool		is_null;
	Datum		value = GetAttributeByName(row, name, &is_null);

	return is_null ? NULL : TextDatumGetCString(value);
}

static ScheduleInstant
bound_attribute(HeapTupleHeader row, const char *name, ScheduleInstant none)
{
	bool		is_null;
	Datum		value = GetAttributeByName(row, name, &is_null);

	if (is_null || TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(value)))
		return none;
	return clockwork_zone_instant(DatumGetTimestampTz(value));
}

static void
walk_rules(Walk *walk, HeapTupleHeader row)
{
	bool		is_null;
	Datum		value;

	clockwork_policy_defaults(&walk->rules);
	walk->rules.starts_at = bound_attribute(row, "starts_at", INT64_MIN);
	walk->rules.ends_at = bound_attribute(row, "ends_at", POLICY_NEVER);
	value = GetAttributeByName(row, "jitter", &is_null);
	if (!is_null)
		walk->rules.jitter = clockwork_interval_usec(DatumGetIntervalP(value));
	value = GetAttributeByName(row, "jobid", &is_null);
	walk->jobid = is_null ? 0 : DatumGetInt64(value);
}

/* Prepare a walk for a row of cron.job; it is over at once if that cannot run. */
static void
walk_job(Walk *walk, HeapTupleHeader row)
{
	char	   *schedule = text_attribute(row, "schedule");
	char	   *name = text_attribute(row, "jobname");
	ScheduleReport report;
	bool		is_null;
	Datum		anchor = GetAttributeByName(row, "schedule_anchor", &is_null);

	walk->over = true;
	walk_rules(walk, row);
	if (schedule == NULL || is_null ||
		!clockwork_schedule_parse(schedule, strlen(schedule), name, name ? strlen(name) : 0,
								  &walk->schedule, &report))
		return;
	walk->zone = clockwork_zone_find(text_attribute(row, "timezone"));
	if (walk->zone == NULL)
		return;
	walk->anchor = clockwork_zone_instant(DatumGetTimestampTz(anchor));
	walk->over = false;
}

/* cron.due_times(job, from_time, to_time), strict */
Datum
clockwork_due_times(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
	{
		FuncCallContext *call = SRF_FIRSTCALL_INIT();
		MemoryContext caller = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		Walk	   *walk = palloc0(sizeof(Walk));

		walk_job(walk, PG_GETARG_HEAPTUPLEHEADER(0));
		walk->at = finite_instant(PG_GETARG_TIMESTAMPTZ(1), "from_time");
		walk->until = finite_instant(PG_GETARG_TIMESTAMPTZ(2), "to_time");
		walk->left = PG_INT64_MAX;
		call->user_fctx = walk;
		MemoryContextSwitchTo(caller);
	}
	return return_walk(fcinfo);
}

/* cron.start_time(job, due_time), strict */
Datum
clockwork_start_time(PG_FUNCTION_ARGS)
{
	Walk		walk = {0};
	ScheduleInstant due = finite_instant(PG_GETARG_TIMESTAMPTZ(1), "due_time");
	TimestampTz next;

	walk_job(&walk, PG_GETARG_HEAPTUPLEHEADER(0));
	if (walk.over)
		PG_RETURN_NULL();
	walk.at = due;
	walk.until = SCHEDULE_NEVER;
	walk.left = 1;
	if (!step(&walk, &next))
		walk.at = POLICY_NEVER;
	PG_RETURN_TIMESTAMPTZ(clockwork_zone_timestamp(due +
												   clockwork_policy_offset(&walk.rules, walk.jobid,
																		   due, walk.at)));
}

/*
 * Refusing @after schedules that could never come true, as SQL errors.
 *
 * The search goes from parent to parent through cron.job, each name once.  Two
 * transactions that each add a half of a circle do not see each other; the
 * launcher finds the circle then, and says so on the job.
 */
#include "postgres.h"

#include "compat.h"
#include "after_check.h"
#include "core/schedule.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"

/* A job that was come to, and from which one. */
typedef struct Step
{
	char	   *name;
	struct Step *from;			/* the job that waits for this one; NULL: the first */
} Step;

/* Of the jobs on a circle so many are named. */
#define STEPS_SHOWN 10

bool
clockwork_after_is_meant(const char *schedule)
{
	schedule += strspn(schedule, " \t\n\v\f\r");
	return pg_strncasecmp(schedule, "@after", 6) == 0;
}

static bool
is_after(const char *text)
{
	Schedule	schedule;
	ScheduleReport report;

	return clockwork_after_is_meant(text) &&
		clockwork_schedule_parse(text, strlen(text), NULL, 0, &schedule, &report) &&
		schedule.kind == SCHEDULE_AFTER;
}

/*
 * The schedule of a role's job of that name, if there is one.  Not read-only:
 * rows that the current statement has written count.
 */
static bool
find_schedule(const char *name, const char *username, char **schedule)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(name), CStringGetTextDatum(username)};
	bool		found;

	if (SPI_execute_with_args("SELECT schedule FROM cron.job"
							  " WHERE jobname OPERATOR(pg_catalog.=) $1"
							  " AND username OPERATOR(pg_catalog.=) $2",
							  2, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read cron.job");
	found = SPI_processed > 0;
	if (found)
		*schedule = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* A job of the role whose name differs in case only; NULL if there is none. */
static char *
find_similar(const char *name, const char *username)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(name), CStringGetTextDatum(username)};
	char	   *similar = NULL;

	if (SPI_execute_with_args("SELECT jobname FROM cron.job"
							  " WHERE pg_catalog.lower(jobname) OPERATOR(pg_catalog.=) pg_catalog.lower($1)"
							  " AND username OPERATOR(pg_catalog.=) $2 ORDER BY jobid LIMIT 1",
							  2, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read cron.job");
	if (SPI_processed > 0)
		similar = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	SPI_freetuptable(SPI_tuptable);
	return similar;
}

static void
report_unknown(const char *schedule, const char *name, const char *username, bool may_come)
{
	char	   *similar = find_similar(name, username);

	if (may_come)
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("schedule \"%s\" waits for a job that does not exist", schedule),
				 errdetail("Role \"%s\" has no job named \"%s\".", username, name),
				 similar ? errhint("Perhaps you meant \"%s\".", similar) :
				 errhint("It cannot run until there is such a job.")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid schedule: %s", schedule),
				 errdetail("Role \"%s\" has no job named \"%s\".", username, name),
				 similar ? errhint("Perhaps you meant \"%s\".", similar) :
				 errhint("Schedule that job first.")));
}

/* The circle, from the job through those it waits for back to itself. */
static void
refuse_circle(const char *schedule, const char *name, const Step *last)
{
	StringInfoData path;
	List	   *steps = NIL;
	ListCell   *cell;
	int			shown = 0;

	if (last->from == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid schedule: %s", schedule),
				 errdetail("The job would wait for itself.")));

	for (const Step *step = last; step; step = step->from)
		steps = lcons(unconstify(Step *, step), steps);
	initStringInfo(&path);
	foreach(cell, steps)
	{
		if (++shown > STEPS_SHOWN)
		{
			appendStringInfoString(&path, "... waits for ");
			break;
		}
		appendStringInfo(&path, "\"%s\" waits for ", ((Step *) lfirst(cell))->name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid schedule: %s", schedule),
			 errdetail("The jobs would wait for each other: %s\"%s\".", path.data, name)));
}

static HTAB *
make_seen(void)
{
	HASHCTL		control;

	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(uint64);
	control.hcxt = CurrentMemoryContext;
	return hash_create("pg_clockwork names seen", 64, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Is this the first time?  Names are told apart by their hashes. */
static bool
is_first_visit(HTAB *seen, const char *name)
{
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) name,
														(int) strlen(name), 0));
	bool		found;

	(void) hash_search(seen, &hash, HASH_ENTER, &found);
	return !found;
}

/*
 * The jobs that a step's schedule waits for, as steps of their own, or an error
 * if one of them is where the search began.
 */
static List *
add_parents(List *steps, Step *from, const char *text, const char *schedule,
			const char *name, HTAB *seen)
{
	ScheduleParent parent;
	size_t		length = strlen(text);
	size_t		position = 0;

	while (clockwork_schedule_next_parent(text, length, &position, &parent))
	{
		Step	   *step = palloc(sizeof(Step));

		step->name = palloc(parent.length + 1);
		step->from = from;
		(void) clockwork_schedule_parent_name(&parent, step->name, parent.length + 1);
		if (name && strcmp(step->name, name) == 0)
			refuse_circle(schedule, name, from);
		if (is_first_visit(seen, step->name))
			steps = lappend(steps, step);
	}
	return steps;
}

static void
search(const char *schedule, const char *name, const char *username, bool may_come)
{
	HTAB	   *seen = make_seen();
	Step		first = {name ? pstrdup(name) : pstrdup(""), NULL};
	List	   *steps = add_parents(NIL, &first, schedule, schedule, name, seen);

	/* The list grows while it is walked. */
	for (int i = 0; i < list_length(steps); i++)
	{
		Step	   *step = list_nth(steps, i);
		char	   *text;

		CHECK_FOR_INTERRUPTS();
		if (!find_schedule(step->name, username, &text))
		{
			if (step->from == &first)
				report_unknown(schedule, step->name, username, may_come);
			continue;
		}
		if (is_after(text))
			steps = add_parents(steps, step, text, schedule, name, seen);
	}
	hash_destroy(seen);
}

void
clockwork_after_check(const ExtensionObjects *objects, const char *schedule,
					  const char *name, const char *username, bool may_come)
{
	ExtensionSection section;

	if (!is_after(schedule))
		return;
	clockwork_extension_enter(&section, objects->owner);
	PushActiveSnapshot(GetTransactionSnapshot());
	search(schedule, name, username, may_come);
	PopActiveSnapshot();
	clockwork_extension_leave(&section);
}

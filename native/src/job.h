/*
 * A job's definition, as it stands in its row of cron.job, and changes to it.
 */
#ifndef CLOCKWORK_JOB_H
#define CLOCKWORK_JOB_H

#include "core/policy.h"
#include "datatype/timestamp.h"

/* Which records of a job stay when they are final and a later one is there. */
typedef enum JobHistory
{
	HISTORY_ALL,
	HISTORY_FAILURES,			/* not those of runs that succeeded */
	HISTORY_NONE
} JobHistory;

typedef struct JobDefinition
{
	int64		jobid;
	const char *name;			/* NULL if unnamed */
	const char *schedule;
	const char *command;
	const char *database;
	const char *username;
	const char *timezone;		/* NULL: cron.timezone */
	const char *settings;		/* of its runs: a JSON object; NULL: none */
	bool		active;
	bool		fresh_session;	/* its runs share a worker with no other run */
	int32		priority;
	TimestampTz anchor;			/* where an interval's series begins */
	TimestampTz active_since;	/* no due times before this */
	bool		is_paused;		/* paused_reason is set */
	const PolicyRules *rules;	/* its options */
	const char *paused_reason;	/* NULL: it is not paused */
	const char *notify;			/* channel to tell of its runs' ends; NULL: none */
	JobHistory	history;
	Oid			owner;			/* the role it is pinned to; InvalidOid if there
								 * was none of that name */
	bool		held;			/* of another installation: must not run here */
} JobDefinition;

/*
 * A change to a job: which columns get which values.  Values are texts in the
 * form their type's input function takes.
 */
#define JOB_CHANGE_MAX 25

typedef struct JobColumnChange
{
	const char *column;			/* a constant, never a user's text */
	const char *type;			/* likewise; qualified */
	const char *value;			/* NULL: set to NULL */
	bool		reset;			/* set to the column's default instead */
} JobColumnChange;

typedef struct JobChange
{
	int			count;
	JobColumnChange columns[JOB_CHANGE_MAX];
} JobChange;

static inline void
job_change_set(JobChange *change, const char *column, const char *type, const char *value)
{
	JobColumnChange *set = &change->columns[change->count++];

	set->column = column;
	set->type = type;
	set->value = value;
	set->reset = false;
}

static inline bool
job_change_has(const JobChange *change, const char *column)
{
	for (int i = 0; i < change->count; i++)
		if (strcmp(change->columns[i].column, column) == 0)
			return true;
	return false;
}

/* The value a change gives a column; NULL if it leaves the column alone. */
static inline const char *
job_change_value(const JobChange *change, const char *column)
{
	for (int i = 0; i < change->count; i++)
		if (strcmp(change->columns[i].column, column) == 0)
			return change->columns[i].value;
	return NULL;
}

#endif							/* CLOCKWORK_JOB_H */

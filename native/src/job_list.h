/*
 * The jobs as the launcher knows them: definitions with their schedules
 * parsed, and a heap of when each is due next.
 *
 * Everything here is the launcher's private memory, rebuilt from cron.job
 * whenever it starts.  A definition that cannot run is kept too, with the
 * reason, so that it can be reported once and never stops the others.
 */
#ifndef CLOCKWORK_JOB_LIST_H
#define CLOCKWORK_JOB_LIST_H

#include "clock.h"
#include "core/due_heap.h"
#include "core/schedule.h"
#include "job.h"
#include "pgtime.h"

#include "lib/ilist.h"

struct Child;					/* run_after's */
struct ParentName;				/* run_after's */

/* A parsed schedule, shared, and what is asked of it most. */
typedef struct JobSchedule
{
	const Schedule *parsed;		/* NULL: it could not be parsed */
	ScheduleKind kind;
	int			parent_count;
} JobSchedule;

typedef struct Job
{
	int64		jobid;			/* hash key, must be first */
	DueEntry	due;			/* in the due heap; its key is when the run for
								 * due_time is to start, a TimestampTz */
	TimestampTz due_time;		/* the next one, if it is in the due heap */
	JobDefinition definition;	/* name and command are in `texts`, all else is shared
								 * by the jobs that say the same */
	char	   *texts;			/* one allocation */
	JobSchedule schedule;		/* valid if problem is NULL */
	pg_tz	   *zone;
	TimestampTz anchor;			/* definition.anchor, moved along when the wall
								 * clock is set */
	char	   *problem;		/* why it cannot run; NULL if it can */
	char	   *problem_detail;
	bool		problem_reported;
	bool		problem_is_outside; /* in other jobs, not in its own definition */
	uint32		mark;			/* the last full load that saw its row */

	/* The launcher's: lists of Runs, in the order in which they are to start. */
	dlist_head	under_way;		/* ready, starting or going on */
	dlist_head	waiting;		/* until one under way has ended */
	dlist_head	awaiting;		/* until runs of other jobs have ended (@after) */

	/* run_after's */
	struct Child *child;		/* what its @after schedule waits for, or NULL */
	struct ParentName *known_as;	/* the name others wait for, or NULL */
	dlist_head	resting;		/* until their next attempt is to begin */

	JobHistory	history;		/* as it was when its records were last looked at */
	dlist_node	of_trims;		/* in launcher.trims, if must_trim */
	bool		must_trim;		/* it may have records that its history does not keep */
	TimestampTz trimmed_to;		/* those of due times before this are gone, if they
								 * were not to be kept */

	TimestampTz warmed_for;		/* start_ahead's: the due time that a worker was had for */
	bool		cannot_warm;	/* start_ahead's: that failed, and nothing succeeded since */

	int			failures;		/* due times in a row whose run failed */
	bool		is_unknown;		/* what is to follow from its history is not known
								 * yet: retries, failures */
} Job;

extern void clockwork_job_list_init(void);

extern Job *clockwork_job_list_find(int64 jobid);
extern long clockwork_job_list_count(void);

/* How many of them are held, because they belong to another installation. */
extern long clockwork_job_list_held(void);

/*
 * Take over a definition as read from its row.  A job that is new, or whose
 * schedule, zone or anchor changed or that became active, is next due after
 * `from`, and not before it was made active; any other keeps its next due
 * time, and one that is due already stays due.  What the row says of times
 * after `now` counts as `now`: the clock was set back since.  `is_news`: the row
 * was committed while we watched, so nobody has seen its due times before.
 */
extern Job *clockwork_job_list_put(const JobDefinition *definition, TimestampTz from,
								   TimestampTz now, bool is_news);

/* Is that definition just what is known of the job? */
extern bool clockwork_job_list_is_known(const Job *job, const JobDefinition *definition);

/* Forget a job.  Its runs must not refer to it any more. */
extern void clockwork_job_list_remove(Job *job);

/* Full load: begin, put every row, then visit the jobs that no row stood for. */
extern void clockwork_job_list_begin_load(void);
extern void clockwork_job_list_sweep(void (*gone) (Job *job));

/* Was the job put since the last begin_load? */
extern bool clockwork_job_list_seen(const Job *job);

/* Visit all jobs; the visitor may not remove any. */
extern void clockwork_job_list_visit(void (*visit) (Job *job, void *arg), void *arg);

/* The job that is due first, if it is due by `now`; NULL otherwise. */
extern Job *clockwork_job_list_first_due(TimestampTz now);

/*
 * Copy the jobs that are to start by `until`, in no order and `most` at most, and
 * return how many there are, or most + 1 if there are more.
 */
extern int	clockwork_job_list_find_due(TimestampTz until, Job **found, int most);

/* The job is due at `due` after all, though it was moved past it. */
extern void clockwork_job_list_make_due(Job *job, TimestampTz due);

/* When the first job is to start; DT_NOEND if none ever is. */
extern TimestampTz clockwork_job_list_next_due(void);

/* The first due time of a job after the due time `after`; DT_NOEND if none. */
extern TimestampTz clockwork_job_next_due(Job *job, TimestampTz after);

/*
 * Is `at`, which may have come already, a due time that the job has not been
 * moved past?
 */
extern bool clockwork_job_list_is_due_at(Job *job, TimestampTz at);

/*
 * Say what keeps a job from running though its own definition is right; NULL:
 * nothing any more.
 */
extern void clockwork_job_list_set_outside_problem(Job *job, const char *problem,
												   const char *detail);

/* When the run for a due time of the job is to start: then, or later by jitter. */
extern TimestampTz clockwork_job_start_of(Job *job, TimestampTz due);

/* Move a job to its first due time after the due time `after`. */
extern void clockwork_job_list_advance(Job *job, TimestampTz after);

/* Move a job to its first due time whose run is to start after `moment`. */
extern void clockwork_job_list_resume(Job *job, TimestampTz moment);

/* May the job run: is it active, not paused, and without a problem? */
extern bool clockwork_job_may_run(const Job *job);

/* Compute every job's next due time afresh (a setting changed). */
extern void clockwork_job_list_recompute(TimestampTz from);

/*
 * Due times of elapsed-time schedules stand this many microseconds later than
 * the anchors say.  Each time the clock is set back they get another offset:
 * without it they could come by instants that have their records already, and
 * the job would stand still until the clock has passed those.
 */
extern void clockwork_job_list_set_interval_offset(int64 offset);

/* The wall clock was set by `step`: elapsed-time schedules move along, to a new offset. */
extern void clockwork_job_list_shift_intervals(int64 step, int64 offset);

/* The wall clock was set back to `now`: calendar schedules follow it. */
extern void clockwork_job_list_turn_back(TimestampTz now);

#endif							/* CLOCKWORK_JOB_LIST_H */

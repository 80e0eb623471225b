/*
 * The runs as the launcher knows them: from the due time to the final record.
 *
 * A due time becomes a Run, in one of two lists of its job: it is under way
 * (it stands in the ready heap until it gets a slot, and then holds that), or
 * it waits until one that is under way has ended.  Everything here is the
 * launcher's private memory; what must outlive it is in the slots and in the
 * tables.
 */
#ifndef CLOCKWORK_RUN_LIST_H
#define CLOCKWORK_RUN_LIST_H

#include "clock.h"
#include "core/after.h"
#include "core/due_heap.h"
#include "job_list.h"
#include "run_log.h"
#include "shmem.h"

#include "lib/ilist.h"
#include "postmaster/bgworker.h"

/* The pause before what failed is tried again. */
#define RETRY_MS 1000

/* A run that lasts longer than this is shown as running; shorter ones go
 * straight from starting to their end. */
#define SHOW_RUNNING_MS 200

/* Which list of its job a run is in. */
typedef enum RunPlace
{
	RUN_APART,					/* none: it has ended, or its job is gone */
	RUN_UNDER_WAY,
	RUN_WAITING,
	RUN_AWAITING				/* runs of other jobs: see run_after.h */
} RunPlace;

/* What became of a due time in a job that others may wait for. */
typedef struct Outcome
{
	dlist_node	node;
	int64		jobid;
	TimestampTz due_time;
	AfterOutcome outcome;		/* AFTER_AWAITED: the table knows */
	int64		runid;			/* 0: not known */
	const char *reason;			/* a constant, or NULL */
} Outcome;

/* What a run in RUN_AWAITING knows of one of its parents. */
typedef struct Awaited
{
	AfterOutcome outcome;
	bool		is_open;		/* its record is, though no run is known: closed soon */
	int64		runid;			/* 0: not known */
	char		reason[32];		/* of a parent that was skipped */
} Awaited;

/* One execution on its way from its due time to its final record. */
typedef struct Run
{
	DueEntry	rank;			/* in the ready heap, while it waits for a slot */
	dlist_node	unrecorded;		/* in queued_runs or held_runs */
	bool		is_unrecorded;	/* is it in queued_runs? */
	int64		runid;			/* 0: no record yet */
	int64		jobid;
	Job		   *job;			/* NULL once the job is gone */
	dlist_node	of_job;			/* in the list that `place` says */
	RunPlace	place;
	Awaited    *awaited;		/* for each parent; NULL unless RUN_AWAITING */
	bool		must_look_up;	/* the table may know more of its parents */
	bool		must_decide;	/* something has changed for it: in `undecided` */
	dlist_node	undecided;
	bool		shown_awaiting; /* its record still says that it awaits parents */
	TimestampTz due_time;
	int32		attempt;
	const char *trigger;
	int64		sequence;		/* order of creation */

	/* While it holds a slot */
	int			slot;			/* -1: none */
	BackgroundWorkerHandle *handle; /* NULL: not launched, or adopted */
	int64		launched_at;	/* monotonic */
	bool		shown_running;
	bool		ended;			/* its end is recorded; the process may linger */

	/* While its beginning could not be recorded */
	bool		is_unrecordable;	/* not as queued */
	bool		is_held;		/* is it in held_runs (by `unrecorded`)? */
	int			tries;
	int64		retry_at;		/* monotonic */
} Run;

/* A due time that gets no run, but a record that says why. */
typedef struct Skip
{
	dlist_node	node;
	int64		runid;			/* 0: no record yet */
	int64		jobid;
	TimestampTz due_time;
	const char *trigger;		/* a constant */
	const char *reason;
	char	   *message;
	char	   *database;		/* kept here: the job may be gone by then */
	char	   *username;
	int			tries;
	int64		retry_at;		/* monotonic */
} Skip;

/* The end of a run whose record could not be written when it came. */
typedef struct Late
{
	dlist_node	node;
	int64		runid;
	int64		jobid;
	TimestampTz due_time;
	int32		attempt;
	const char *trigger;
	RunEnding	ending;			/* its texts are its own */
	int			tries;
	int64		retry_at;		/* monotonic */
} Late;

/* A job that has had its one run, and is to be made inactive. */
typedef struct Retiree
{
	dlist_node	node;
	int64		jobid;
	int			tries;
	int64		retry_at;		/* monotonic */
} Retiree;

/* What the parts of the launcher share; there is one per process. */
typedef struct Launcher
{
	ControlPanel *panel;
	ClockReading now;			/* read once per pass */

	MemoryContext run_context;	/* Runs, Skips and handles */
	MemoryContext pass_context; /* reset after every pass */

	DueHeap		ready;			/* runs that could start, were there a slot */
	Run		  **slot_runs;		/* by slot number; NULL: free */
	dlist_head	queued_runs;	/* runs to be recorded as queued */
	dlist_head	held_runs;		/* runs whose beginning could not be recorded */
	dlist_head	skips;			/* due times to be recorded as skipped */
	dlist_head	late_endings;
	dlist_head	retirees;
	dlist_head	outcomes;		/* that run_after has not looked at yet */
	dlist_head	undecided;		/* runs that await parents, and must_decide */
	int64	   *claimed;		/* runids whose beginning a former launcher may have */
	int			nclaimed;		/* committed, but handed to no worker */

	Oid			job_table;		/* cron.job; invalid: no extension */
	bool		must_load;		/* read all jobs, not just the changed ones */
	bool		problems_pending;	/* some job has one to be reported */
	bool		has_backlog;	/* there may be records in cron.record_backlog */
	int64		history_locked_until;	/* monotonic; until then it is not tried */
	TimestampTz missed_until;	/* due times up to here have been missed */
	int64		retry_at;		/* monotonic; 0: nothing waits for a retry */
} Launcher;

extern Launcher launcher;

/* Prepare the lists and take over the slots a former launcher left in use. */
extern void clockwork_run_list_init(void);

/* A new run of a job, in none of its lists yet.  `trigger` is a constant. */
extern Run *clockwork_run_create(Job *job, TimestampTz due_time, int32 attempt,
								 const char *trigger);

/* Put a run in the list of its job, as the last. */
extern void clockwork_run_put_under_way(Run *run);
extern void clockwork_run_put_waiting(Run *run);
extern void clockwork_run_put_awaiting(Run *run);

/* It leaves the list of its job, but still belongs to the job. */
extern void clockwork_run_take_out(Run *run);

/* Forget a run that holds no slot. */
extern void clockwork_run_destroy(Run *run);

/* It may start as soon as there is a slot: by priority, then by age. */
extern void clockwork_run_make_ready(Run *run);

/* It waits: show that in a record, if it has none yet. */
extern void clockwork_run_must_record(Run *run);

/*
 * The one place that hears what became of a due time: how its last attempt
 * ended, or that it got no run.  For the jobs that wait for this one.
 * `reason` is a constant, or NULL.
 */
extern void clockwork_run_note_outcome(const Job *job, TimestampTz due_time, AfterOutcome outcome,
									   int64 runid, const char *reason);

/* A run of the job for that due time that is not over; NULL if there is none. */
extern Run *clockwork_run_find(Job *job, TimestampTz due_time);

/* The due time gets no run: say why.  Takes over the record if there is one. */
extern void clockwork_run_skip_due_time(const Job *job, TimestampTz due_time, int64 runid,
										const char *reason, const char *message);

/* The runs of a job that have no worker yet will not start. */
extern void clockwork_run_abandon_all(Job *job, const char *reason, const char *message);

/* A run of the job is over: the one that waited for that, if any, is next. */
extern void clockwork_run_promote_waiting(Job *job);

/* Give the run's slot back. */
extern void clockwork_run_release_slot(Run *run);

/* The lowest free slot, or -1. */
extern int	clockwork_run_find_free_slot(void);

/* Its end is recorded and its process gone: the next reap gives its slot back. */
extern bool clockwork_run_is_over(Run *run);

/* Look at the slots: whose worker never came, whose process is gone. */
extern void clockwork_run_reap(void);

/*
 * When to try again what has failed `tries` times before: monotonic.  The
 * launcher wakes up for it.
 */
extern int64 clockwork_run_next_try(int tries);

/*
 * Has that time come?  If not, the launcher wakes up for it.  Whoever waits
 * for a time asks in every pass.
 */
extern bool clockwork_run_is_time(int64 at);

extern void clockwork_run_free_skip(Skip *skip);
extern void clockwork_run_free_late(Late *late);
extern void clockwork_run_free_retiree(Retiree *retiree);

static inline Run *
run_of_job(dlist_node *node)
{
	return dlist_container(Run, of_job, node);
}

static inline Run *
run_of_rank(DueEntry *entry)
{
	return (Run *) ((char *) entry - offsetof(Run, rank));
}

#endif							/* CLOCKWORK_RUN_LIST_H */

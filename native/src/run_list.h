/*
 * The runs as the launcher knows them: from the due time to the final record.
 *
 * A due time becomes a Run, in one of three lists of its job: it is under way
 * (it stands in the ready heap until it gets a slot, and then holds that), it
 * waits until one that is under way has ended, or it rests until its next
 * attempt is to begin.  Everything here is the
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

/*
 * A due time whose run waits for a slot is recorded as queued when it is this
 * old; those that wait for less go straight to starting.  While slots are handed
 * on, and where it is the only due time of its job for as long, when it is
 * SHOW_IN_LINE_MS old.
 */
#define SHOW_QUEUED_MS 200
#define SHOW_IN_LINE_MS 5000

/* Which list of its job a run is in. */
typedef enum RunPlace
{
	RUN_APART,					/* none: it has ended, or its job is gone */
	RUN_UNDER_WAY,
	RUN_WAITING,
	RUN_AWAITING,				/* runs of other jobs: see run_after.h */
	RUN_RESTING
} RunPlace;

/* A worker that waits in its slot for a run. */
typedef struct IdleWorker
{
	BackgroundWorkerHandle *handle; /* NULL: a former launcher's; it is dismissed */
	Oid			role;
	char		database_name[NAMEDATALEN]; /* as its last run's job has it */
	bool		is_new;			/* it has had no run yet */
	int64		jobid;			/* while it is new: the job that it was had for */
	int64		requested_at;	/* monotonic; while it is new and not connected; else 0 */
	int64		kept_for;		/* monotonic; a run that is to start then counts on it */
} IdleWorker;

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

/* What a role has of the slots. */
typedef struct RoleShare
{
	Oid			role;			/* hash key, must be first */
	int			running;		/* slots held by runs of the role */
	DueHeap		parked;			/* ready runs that the role's cap holds back */
} RoleShare;

/* One execution on its way from its due time to its final record. */
typedef struct Run
{
	DueEntry	rank;			/* in the ready heap, or parked, while it waits for
								 * a slot */
	DueEntry	alarm;			/* in the launcher's alarms: monotonic */
	dlist_node	unrecorded;		/* in queued_runs or held_runs */
	bool		is_unrecorded;	/* is it in queued_runs? */
	int64		show_at;		/* monotonic; that it waits for a slot is not shown
								 * before */
	int64		show_in_line_at;	/* the same while slots are handed on */
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
	TimestampTz start;			/* when it should start: due_time and jitter */
	int64		deadline;		/* monotonic; not to start after it */
	int32		attempt;
	const char *trigger;
	bool		asked;			/* somebody asked for it: whether the job is active
								 * does not matter */
	bool		in_order;		/* one of a backfill: it waits for its turn, however
								 * many do, and stands back for the others */
	RunOrder	order;			/* how it goes with those */
	bool		is_ahead;		/* it has its slot before it is to start */
	int64		sequence;		/* order of creation */
	RoleShare  *share;			/* where it is parked, or counts as running */
	bool		is_parked;

	/* While it holds a slot */
	int			slot;			/* -1: none */
	BackgroundWorkerHandle *handle; /* of the worker in the slot; NULL: none yet, or
									 * adopted */
	int64		launched_at;	/* monotonic */
	bool		shown_running;
	bool		must_log_start; /* a line in the server log will say that it starts */
	bool		ended;			/* its end is recorded; the process may linger */
	int64		timeout;		/* 0: none */
	const char *stop_reason;	/* why it was told to stop, a constant; or NULL */
	int64		grace;			/* from then to its termination */
	int64		stopped_at;		/* monotonic; when it was told to stop */
	int64		terminated_at;	/* monotonic; the last time; or POLICY_NEVER */

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
	int32		attempt;
	const char *trigger;		/* a constant */
	const char *status;			/* skipped, or failed if it was cancelled */
	const char *reason;
	char	   *message;
	char	   *detail;			/* NULL: none */
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
	RunIdentity identity;		/* in case its record is gone by then */
	RunEnding	ending;			/* the texts of both are its own */
	int			tries;
	int64		retry_at;		/* monotonic */
} Late;

/* The record of a run that was begun ahead, and is not to start after all. */
typedef struct Withdrawal
{
	dlist_node	node;
	int64		runid;
	int64		jobid;
	TimestampTz due_time;
	int			tries;
	int64		retry_at;		/* monotonic */
} Withdrawal;

/* A job that is to be paused; or to be made inactive after its one run. */
typedef struct Retiree
{
	dlist_node	node;
	int64		jobid;
	char	   *pause_reason;	/* NULL: make it inactive */
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
	DueHeap		alarms;			/* runs to be looked at when it is time */
	Run		  **slot_runs;		/* by slot number; NULL: free, or idle */
	IdleWorker *idle_workers;	/* by slot number; valid where the slot is idle */
	dlist_head	queued_runs;	/* runs to be recorded as queued */
	dlist_head	held_runs;		/* runs whose beginning could not be recorded */
	dlist_head	skips;			/* due times to be recorded as skipped */
	dlist_head	late_endings;
	dlist_head	retirees;
	dlist_head	withdrawals;
	dlist_head	trims;			/* jobs with records to be removed, by of_trims */
	dlist_head	outcomes;		/* that run_after has not looked at yet */
	dlist_head	undecided;		/* runs that await parents, and must_decide */
	int64	   *claimed;		/* runids whose beginning a former launcher may have */
	int			nclaimed;		/* committed, but handed to no worker; -1: they are
								 * taken up */

	bool		is_leaving;		/* the server stops: nothing begins any more */
	bool		server_stops;	/* a run has said so; our turn will come */
	Oid			job_table;		/* cron.job; invalid: no extension */
	bool		must_load;		/* read all jobs, not just the changed ones */
	bool		problems_pending;	/* some job has one to be reported */
	bool		pausing;		/* runs of paused jobs are still waiting */
	bool		has_backlog;	/* there may be records in cron.record_backlog */
	int64		history_locked_until;	/* monotonic; until then it is not tried */
	bool		is_paused;		/* cron.pause_all: due times pass by */
	bool		pause_unread;	/* that may have changed */
	bool		may_begin;		/* in this pass, runs may get slots */
	int64		handed_on_at;	/* monotonic; when a ready run last got a slot */
	TimestampTz missed_until;	/* due times up to here have been missed */
	TimestampTz settled_from;	/* none between here and a job's trimmed_to was
								 * jumped over by the clock */
	int64		retry_at;		/* monotonic; 0: nothing waits for a retry */
} Launcher;

extern Launcher launcher;

/* Prepare the lists and take over the slots a former launcher left in use. */
extern void clockwork_run_list_init(void);

/*
 * Free the slots that a former launcher had claimed and not filled: their runs
 * are taken up, and their records say so.
 */
extern void clockwork_run_free_claimed(void);

/* What holds for all jobs, as the settings have it now. */
extern PolicyLimits clockwork_run_limits(void);

/*
 * The last moment (monotonic) at which a run of the job that should start at
 * `start` may do so; POLICY_NEVER if there is none.
 */
extern int64 clockwork_run_deadline(const Job *job, TimestampTz start);

/* A new run of a job, in none of its lists yet.  `trigger` is a constant. */
extern Run *clockwork_run_create(Job *job, TimestampTz due_time, int32 attempt,
								 const char *trigger);

/*
 * Somebody asked for this new run: no jitter; and the due times of a backfill
 * are long over, so they give it neither precedence nor a deadline.
 */
extern void clockwork_run_ask(Run *run);

/* Put a run in the list of its job, as the last. */
extern void clockwork_run_put_under_way(Run *run);
extern void clockwork_run_put_waiting(Run *run);
extern void clockwork_run_put_awaiting(Run *run);
extern void clockwork_run_put_resting(Run *run);

/*
 * It goes under way and is ready if its job has room for it and nothing waits;
 * else it waits, last in line, or first with `is_urgent`.
 */
extern void clockwork_run_line_up(Run *run, bool is_urgent);

/* It leaves the list of its job, but still belongs to the job. */
extern void clockwork_run_take_out(Run *run);

/* Forget a run that holds no slot. */
extern void clockwork_run_destroy(Run *run);

/* It may start as soon as there is a slot: by priority, then by age. */
extern void clockwork_run_make_ready(Run *run);

/*
 * May a due time of the job wait without a record for up to SHOW_IN_LINE_MS?  No
 * other one is to come by then: after a crash, that it has none must tell.
 */
extern bool clockwork_run_may_wait_unseen(const Job *job, TimestampTz due_time);

/* It waits: show that in a record, if it has none yet. */
extern void clockwork_run_must_record(Run *run);

/* The same for a run that waits for a slot: once that lasts.  Ask in every pass. */
extern void clockwork_run_must_record_if_it_lasts(Run *run);

/*
 * The one place that hears what became of a due time: how its last attempt
 * ended, or that it got no run.  For the jobs that wait for this one.
 * `reason` is a constant, or NULL.
 */
extern void clockwork_run_note_outcome(const Job *job, TimestampTz due_time, AfterOutcome outcome,
									   int64 runid, const char *reason);

/*
 * A record of the job for that due time has become final, or (DT_NOEND) may have:
 * what its history does not keep is to be removed.
 */
extern void clockwork_run_must_trim(Job *job, TimestampTz due_time, bool succeeded);

/* May only a success make records of the job superfluous? */
extern bool clockwork_run_trims_on_success(const Job *job);

/* A run of the job for that due time that is not over; NULL if there is none. */
extern Run *clockwork_run_find(Job *job, TimestampTz due_time);
/* This run, which holds no slot, will not start: say why and forget it. */
extern void clockwork_run_skip(Run *run, const char *reason, const char *message);

/* The due time gets no run: say why.  Takes over the record if there is one. */
extern void clockwork_run_skip_due_time(const Job *job, TimestampTz due_time, int64 runid,
										const char *reason, const char *message);

/*
 * The runs of a job that have no worker yet will not start; those that
 * somebody asked for only if `all`.
 */
extern void clockwork_run_abandon_all(Job *job, bool all, const char *reason, const char *message);

/* The run with that number that has not ended; NULL if there is none. */
extern Run *clockwork_run_find_by_id(int64 runid);

/* What return_message says of a run that somebody cancelled. */
#define CANCEL_MESSAGE "job canceled"

/* A run that holds no slot will not start: that role has cancelled it. */
extern void clockwork_run_cancel_unstarted(Run *run, const char *by);

/*
 * End a run whose worker was asked for and has not come: false if it has.
 */
extern bool clockwork_run_end_unattached(Run *run, const char *message);

/* A run of the job is over: those that waited for that, if any, are next. */
extern void clockwork_run_promote_waiting(Job *job);

/*
 * The first ready run whose role may have one more, taken out of the heap; NULL
 * if there is none.  It counts as running.
 */
extern Run *clockwork_run_take_ready(void);

/* A run that has a slot, but was not taken from the ready ones, counts for its role. */
extern void clockwork_run_count(Run *run);

/* May the role have one more run? */
extern bool clockwork_run_role_has_room(Oid role);

/* The cap per role may have changed: all parked runs are ready again. */
extern void clockwork_run_unpark_all(void);

/* The earliest due time that only parked runs without a record know of. */
extern TimestampTz clockwork_run_earliest_parked(TimestampTz bound);

/* Look at the run again at `at` (monotonic); POLICY_NEVER: not. */
extern void clockwork_run_set_alarm(Run *run, int64 at);

/* Give the run's slot back; a worker that waits in it goes on waiting. */
extern void clockwork_run_release_slot(Run *run);

/*
 * Take back a run that has a slot and whose command no worker has begun, nor is
 * starting up for: it has no slot any more.  False if it is too late.
 */
extern bool clockwork_run_take_back(Run *run);

/*
 * The run, which holds no slot, was begun ahead and is not to start as it is: it
 * is forgotten, as if its due time had not come.
 */
extern void clockwork_run_forget_ahead(Run *run);

/* Take back and forget all those of a job (NULL: of all jobs), which stay due; too late for some. */
extern void clockwork_run_withdraw_all(Job *job);

/* The record that is left of a run withdrawn for that due time, now the caller's; 0: none. */
extern int64 clockwork_run_take_withdrawn(const Job *job, TimestampTz due_time);

/* Say in the server log that the run starts, if that is wanted and was not said. */
extern void clockwork_run_log_start_of(Run *run);

/* Is there a slot without a run, free or with a worker that waits? */
extern bool clockwork_run_has_free_slot(void);
extern int	clockwork_run_count_free_slots(void);

/*
 * The slot for a ready run: one whose worker waits for just such a run, or else
 * a free one; -1 if there is neither.
 */
extern int	clockwork_run_choose_slot(const Run *run);

/*
 * The slot of a worker that waits for just such a run as the job's; with
 * `spare`, one that no other run counts on.  -1 if there is none.
 */
extern int	clockwork_run_find_waiting(const Job *job, bool spare);

/* A slot without a run or a process; -1 if there is none. */
extern int	clockwork_run_find_free_slot(void);

/*
 * Ask the server for a process for the slot as it is now.  False if it has no
 * background worker to spare: not an error, try again later.
 */
extern bool clockwork_run_request_worker(int slot_index, BackgroundWorkerHandle **handle);

/* The run has that slot from now on, and the worker that waits there. */
extern void clockwork_run_claim_slot(Run *run, int slot_index);

/* It got no slot after all: it is ready again. */
extern void clockwork_run_return_ready(Run *run);

/*
 * Have so many workers that wait in vain leave, or as many as there are, those
 * that are about to included.
 */
extern void clockwork_run_dismiss_idle(int wanted);

/* Is there something in the slot for the next reap to find? */
extern bool clockwork_run_must_reap(int slot_index);

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
extern void clockwork_run_free_withdrawal(Withdrawal *withdrawal);

static inline Run *
run_of_job(dlist_node *node)
{
	return dlist_container(Run, of_job, node);
}

static inline Run *
run_of_alarm(DueEntry *entry)
{
	return (Run *) ((char *) entry - offsetof(Run, alarm));
}

static inline Run *
run_of_rank(DueEntry *entry)
{
	return (Run *) ((char *) entry - offsetof(Run, rank));
}

#endif							/* CLOCKWORK_RUN_LIST_H */

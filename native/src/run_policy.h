/*
 * Executing the decisions of the core on runs: what becomes of a due time, of
 * a run that goes on too long, and of a job when a run has ended.
 *
 * The rules are those of core/policy.h; here is who is asked what, when, and
 * what is then done to the lists of runs.
 */
#ifndef CLOCKWORK_RUN_POLICY_H
#define CLOCKWORK_RUN_POLICY_H

#include "run_list.h"

/*
 * A run of a job whose time has come, in none of its lists yet: it gets in
 * line, or is skipped, or takes the place of all others.
 */
extern void clockwork_run_policy_admit(Run *run);

/* A job is due now: take or skip its due time, and move on to the next one. */
extern void clockwork_run_policy_due(Job *job);

/*
 * Would the job's next due time, were it now, become a run at once, whatever its
 * policies: is there nothing of it that it could overlap with, nor wait for?
 */
extern bool clockwork_run_policy_is_simple(Job *job);

/*
 * The run of such a job for its next due time, which is yet to come; the job
 * moves on.  It is under way and counts for its role: give it a slot.
 */
extern Run *clockwork_run_policy_anticipate(Job *job);

/* Due times of the job were missed, up to those that should have started by `horizon`. */
extern void clockwork_run_policy_missed(Job *job, TimestampTz horizon);

/* Look at the runs whose time has come: deadlines, timeouts, retries. */
extern void clockwork_run_policy_look(void);

/* A worker has been asked for. */
extern void clockwork_run_policy_launched(Run *run);

/* A former launcher's run in a slot is the job's again: its timeout counts. */
extern void clockwork_run_policy_adopted(Run *run);

/*
 * Tell a run that holds a slot to stop: cancel it now, terminate it when it has
 * not ended after cron.timeout_grace.  Its record says `reason`, a constant.
 * Nothing happens if it was told before.
 */
extern void clockwork_run_policy_stop(Run *run, const char *reason);

/*
 * Somebody cancels a run: one without a worker will not start, with a record
 * that says so; any other is told to stop, and terminated after `grace`
 * microseconds (< 0: never).  False if it has ended.
 */
extern bool clockwork_run_policy_cancel(Run *run, const char *by, int64 grace);

/* Did the run in this slot end because it was told to, and not of itself? */
extern bool clockwork_run_policy_was_stopped(const Run *run);

/*
 * A run that still belongs to its job has come to its end, and its record is
 * written; it has left the lists of its job.  Another attempt follows, or the
 * outcome is final and noted for the jobs that wait for it.  `sqlerrcode` is 0 if there is none.
 */
extern void clockwork_run_policy_ended(Run *run, PolicyOutcome outcome, int sqlerrcode);

/* How the run in this slot ended. */
extern PolicyOutcome clockwork_run_policy_outcome(const Run *run);

/*
 * After a restart: what is to follow from the records of a job, the newest
 * first, is what would have followed then.  Called in a pass of its own,
 * when no record is left open without a run.
 */
extern void clockwork_run_policy_rebuild(Job *job, const PastRun *past, int count);

#endif							/* CLOCKWORK_RUN_POLICY_H */
